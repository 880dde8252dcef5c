#pragma once
/// Synthetic runs on disk: a DICOM file, the truth and the events, as `cinelumen phantom` writes them.

#include <filesystem>
#include <string>

#include "engine/phantom/phantom.h"

namespace cinelumen {

/// truth.json, one line per array: {"schema": "cinelumen.phantom/1", "scenario", "seed", "events", "runs": [{"file", calibration, PSF,
/// noise, motion and contrast mass per frame, "warp" (the spline's coefficients per frame, where there is one), "branch_points",
/// "open_field_px", "devices", "lesions", "crossings", "flow_split" (of a foot), "segments"}]}. Frame numbers are 1-based, positions (y, x)
/// those of frame 1, diameters those in the plane of calibration; null where a thing does not exist.
std::string truth_json(const PhantomRun& phantom);

/// Writes run_01.dcm, events.json and truth.json into `folder`, all or none; truth.json comes last. run_01.dcm is an X-Ray Angiographic
/// image, uncompressed. LIN: value = linear count. LOG: value = offset + slope ln(linear count), Sign +1, with a Pixel
/// Intensity Relationship LUT (TO_LINEAR, 16 bits) and the same table as Modality LUT. The same run gives the same bytes. Throws
/// OutputError.
void write_phantom(const PhantomRun& phantom, const std::filesystem::path& folder);

}  // namespace cinelumen
