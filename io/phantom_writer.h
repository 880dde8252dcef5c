#pragma once
/// Synthetic runs on disk: a DICOM file, the truth and the events, as `cinelumen phantom` writes them.

#include <filesystem>
#include <functional>
#include <string>

#include "engine/phantom/clinical_case.h"
#include "engine/phantom/phantom.h"

namespace cinelumen {

/// truth.json, one line per array: {"schema": "cinelumen.phantom/1", "scenario", "seed", "events", "runs": [{"file", calibration, PSF,
/// noise, motion and contrast mass per frame, "warp" (the spline's coefficients per frame, where there is one), "branch_points",
/// "open_field_px", "pose", "devices", "lesions", "stains" (where there are any), "crossings", "flow_split" (of a foot), "segments"}]}.
/// Frame numbers are 1-based, positions (y, x) those of frame 1, diameters those in the plane of calibration; null where a thing does not
/// exist. Of a spasm within the run, "events" has
/// {"run", "event": "spasm", "onset_ms", "complete_ms", "segments" (ids), "narrowing_percent" (in the end), "extent_mm"}, and a segment
/// that takes part has "calibre": per frame and point its diameter relative to "diameter_mm".
std::string truth_json(const PhantomRun& phantom);

/// Writes run_01.dcm, events.json and truth.json into `folder`, all or none; truth.json comes last. run_01.dcm is an X-Ray Angiographic
/// image, uncompressed. LIN: value = linear count. LOG: value = offset + slope ln(linear count), Sign +1, with a Pixel
/// Intensity Relationship LUT (TO_LINEAR, 16 bits) and the same table as Modality LUT. The same run gives the same bytes. Throws
/// OutputError.
void write_phantom(const PhantomRun& phantom, const std::filesystem::path& folder);

/// Writes run_01.dcm to run_07.dcm, events.json and truth.json into `folder`, all or none. The runs are one patient's, each session a study
/// of its own; dates are those of the events, series descriptions say what was before. events.json is what `compare` takes. truth.json has
/// "scenario": "case", "variant", the events, seven "runs" as of truth_json(), and "timeline": {"response", "segments": [{"name", "role",
/// "label", "grade", "narrowing_percent", "extent_mm", "lesion_extent_mm" (across branch points), "recovery", "runs": [{"run", "state",
/// "narrowing_percent", "change_percent" (against the first run), "extent_mm", "place_mm" (as in the segments' own "place_mm"),
/// "diameter_mm", "contrast", "label_now", "grade"}]}]}. `done` is called after each run with its 0-based index. Throws OutputError.
PhantomTimeline write_phantom_case(
    const PhantomCase& made, const std::filesystem::path& folder, const std::function<void(int run)>& done = [](int) {});

}  // namespace cinelumen
