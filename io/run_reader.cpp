#include "io/run_reader.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>

#include "io/byte_source.h"
#include "io/dicom_header.h"
#include "io/dicom_layout.h"
#include "io/dicom_pixels.h"
#include "io/field_of_view.h"
#include "io/video_reader.h"

namespace cinelumen {
namespace {

namespace fs = std::filesystem;

/// Single-frame files, one after the other, as one run.
class FilesAsFrames final : public FrameSource {
 public:
  explicit FilesAsFrames(std::vector<std::shared_ptr<const FrameSource>> files) : files_(std::move(files)) {}
  int frame_count() const override { return static_cast<int>(files_.size()); }
  int rows() const override { return files_.front()->rows(); }
  int columns() const override { return files_.front()->columns(); }
  void read_frame(int frame, ImageView<std::uint16_t> stored) const override {
    if (frame < 0 || frame >= frame_count()) throw std::invalid_argument("read_frame: no such frame");
    files_[static_cast<std::size_t>(frame)]->read_frame(0, stored);
  }

 private:
  std::vector<std::shared_ptr<const FrameSource>> files_;
};

Run run_of(DicomHeader&& header) {
  Run run;
  run.frames = header.frames;
  run.description = std::move(header.description);
  run.intensity = std::move(header.intensity);
  run.geometry = header.geometry;
  run.mask_instructions = std::move(header.mask_instructions);
  run.frame_times_ms = std::move(header.frame_times_ms);
  run.window = header.window;
  run.warnings = std::move(header.warnings);
  run.field = field_from_header(run.rows(), run.columns(), header.shutter, header.collimator, run.warnings);
  return run;
}

Run read_dicom_file(const ByteSource& file) {
  Run run = run_of(read_dicom_header(read_dicom_layout(file)));
  run.description.sha256 = sha256(file);
  return run;
}

/// What of a single-frame file decides its place in a run.
struct Slice {
  ByteSource file;
  std::shared_ptr<const FrameSource> frames;
  std::string sop_instance_uid;
  std::optional<int> instance_number;
  std::optional<double> acquired_ms, content_ms;
};

/// Files of one run: the first one's header and all in order.
struct Group {
  DicomHeader header;
  std::vector<Slice> slices;
  std::string name;
};

bool all_increase(const std::vector<Slice>& slices, std::optional<double> Slice::*time) {
  for (std::size_t i = 0; i < slices.size(); ++i)
    if (!(slices[i].*time) || (i > 0 && !(*(slices[i].*time) > *(slices[i - 1].*time)))) return false;
  return true;
}

void put_in_order(Group& group, std::vector<std::string>& warnings) {
  std::vector<Slice>& slices = group.slices;
  std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) { return a.file.path() < b.file.path(); });
  std::vector<std::string> seen;
  const std::size_t before = slices.size();
  std::erase_if(slices, [&](const Slice& slice) {
    if (slice.sop_instance_uid.empty()) return false;
    if (std::find(seen.begin(), seen.end(), slice.sop_instance_uid) != seen.end()) return true;
    seen.push_back(slice.sop_instance_uid);
    return false;
  });
  if (slices.size() < before)
    warnings.push_back(std::to_string(before - slices.size()) + " file(s) repeat a SOP Instance UID (0008,0018) and were left out.");

  std::stable_sort(slices.begin(), slices.end(),
                   [](const Slice& a, const Slice& b) { return a.instance_number.value_or(-1) < b.instance_number.value_or(-1); });
  bool numbered = true;
  for (std::size_t i = 0; i < slices.size(); ++i)
    numbered = numbered && slices[i].instance_number && (i == 0 || *slices[i].instance_number > *slices[i - 1].instance_number);
  if (numbered) {
    const int span = *slices.back().instance_number - *slices.front().instance_number + 1;
    if (span != static_cast<int>(slices.size()))
      warnings.push_back("Instance Numbers (0020,0013) run from " + std::to_string(*slices.front().instance_number) + " to " +
                         std::to_string(*slices.back().instance_number) + ", but there are " + std::to_string(slices.size()) +
                         " files: frames are missing.");
    return;
  }
  for (const auto time : {&Slice::acquired_ms, &Slice::content_ms}) {
    std::vector<Slice> by_time = slices;
    std::stable_sort(by_time.begin(), by_time.end(),
                     [&](const Slice& a, const Slice& b) { return (a.*time).value_or(0) < (b.*time).value_or(0); });
    if (!all_increase(by_time, time)) continue;
    slices = std::move(by_time);
    warnings.push_back("Instance Numbers (0020,0013) are absent or repeated; the files were ordered by time.");
    return;
  }
  throw InputError(group.name +
                   ": the frames can't be put in order: Instance Number (0020,0013) and acquisition times are absent or repeated");
}

Run run_of(Group&& group) {
  std::vector<std::string> warnings;
  put_in_order(group, warnings);
  std::vector<std::shared_ptr<const FrameSource>> frames;
  std::vector<ByteSource> files;
  for (const Slice& slice : group.slices) {
    frames.push_back(slice.frames);
    files.push_back(slice.file);
  }
  const int count = static_cast<int>(frames.size());
  const std::optional<double> interval = group.header.frame_interval_ms;
  Run run = run_of(std::move(group.header));
  run.frames = std::make_shared<FilesAsFrames>(std::move(frames));
  run.description.path = group.name;
  run.description.sha256 = sha256(files);
  run.warnings.insert(run.warnings.end(), warnings.begin(), warnings.end());
  run.frame_times_ms.clear();
  for (const auto time : {&Slice::acquired_ms, &Slice::content_ms}) {
    if (!run.frame_times_ms.empty() || !all_increase(group.slices, time)) continue;
    for (const Slice& slice : group.slices) run.frame_times_ms.push_back(*(slice.*time) - *(group.slices.front().*time));
  }
  if (run.frame_times_ms.empty() && interval)
    for (int i = 0; i < count; ++i) run.frame_times_ms.push_back(*interval * i);
  if (run.frame_times_ms.empty())
    run.warnings.push_back(std::string("The files give no frame times; nothing that depends on time is measured. ") + frame_time_hint);
  return run;
}

void require_alike(const DicomHeader& first, const DicomHeader& other) {
  const auto same = [](const IntensityEncoding& a, const IntensityEncoding& b) {
    return a.relationship == b.relationship && a.sign == b.sign && a.bits_stored == b.bits_stored && a.value == b.value;
  };
  if (!same(first.intensity, other.intensity))
    throw InputError(other.description.path + ": pixel intensity (relationship, sign, bits or LUT) differs from that of " +
                     first.description.path + ", of the same series");
}

Run read_folder(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  std::size_t folders = 0;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code ignored;
    folders += entry->is_directory(ignored);
    if (!name.empty() && name.front() != '.' && name != "DICOMDIR" && entry->is_regular_file(ignored))
      paths.push_back(entry->path().string());
  }
  if (error) throw InputError(folder + ": can't be read: " + error.message());
  std::sort(paths.begin(), paths.end());

  std::map<std::string, Group> groups;
  std::size_t left_out = 0, dicom_files = 0;
  std::string other_kind;
  for (const std::string& path : paths) {
    const ByteSource file = ByteSource::file(path);
    if (!looks_like_dicom(file)) {
      ++left_out;
      continue;
    }
    ++dicom_files;
    const DicomLayout layout = read_dicom_layout(file);
    if (!read_dicom_identity(layout).angiographic) {
      ++left_out;
      other_kind = path;
      continue;
    }
    DicomHeader header = read_dicom_header(layout);
    std::string key = header.description.series_instance_uid + "|" + std::to_string(header.format.rows) + "x" +
                      std::to_string(header.format.columns) + "|" + std::to_string(header.acquisition_number.value_or(-1));
    if (header.format.frames > 1) key = path;
    const auto [place, is_new] = groups.try_emplace(key);
    Group& group = place->second;
    group.slices.push_back(
        {file, header.frames, header.description.sop_instance_uid, header.instance_number, header.acquired_ms, header.content_ms});
    if (is_new) {
      group.name = path;
      group.header = std::move(header);
    } else {
      require_alike(group.header, header);
    }
  }
  // Some consoles count acquisitions up with every frame of one run.
  const bool all_single = std::all_of(groups.begin(), groups.end(), [](const auto& entry) {
    return entry.second.slices.size() == 1 && entry.second.header.format.frames == 1;
  });
  if (groups.size() > 1 && all_single) {
    std::map<std::string, Group> merged;
    for (auto& [key, group] : groups) {
      const auto [place, is_new] = merged.try_emplace(key.substr(0, key.rfind('|')));
      if (is_new) {
        place->second = std::move(group);
      } else {
        require_alike(place->second.header, group.header);
        place->second.slices.push_back(std::move(group.slices.front()));
      }
    }
    groups = std::move(merged);
  }
  if (groups.empty()) {
    const std::vector<std::string> images = images_in_folder(folder);
    if (dicom_files == 0 && !images.empty()) return read_images(folder, images);
    if (!other_kind.empty())
      throw InputError(folder + ": not an angiographic run: none of its " + std::to_string(dicom_files) +
                       " DICOM files is XA or XRF, nor an enhanced one");
    throw InputError(folder + ": no run in this folder: " + std::to_string(paths.size()) + " files and " + std::to_string(folders) +
                     " folders, none of the files is DICOM or an image");
  }
  if (groups.size() > 1) {
    std::string list;
    int listed = 0;
    for (const auto& [key, group] : groups) {
      if (++listed > 8) break;
      list += (list.empty() ? "" : ", ") + fs::path(group.name).filename().string() + " (" +
              std::to_string(group.slices.size() > 1 ? static_cast<int>(group.slices.size()) : group.header.format.frames) + " frames)";
    }
    if (groups.size() > 8) list += ", ...";
    throw InputError(folder + ": " + std::to_string(groups.size()) + " runs in this folder, one expected; they begin with " + list);
  }
  Group& group = groups.begin()->second;
  Run run;
  if (group.slices.size() == 1) {
    const ByteSource file = group.slices.front().file;
    run = run_of(std::move(group.header));
    run.description.sha256 = sha256(file);
  } else {
    group.name = folder;
    run = run_of(std::move(group));
  }
  if (left_out > 0) run.warnings.push_back(std::to_string(left_out) + " other file(s) in the folder were left aside.");
  return run;
}

Run open(const std::string& path) {
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (status.type() == fs::file_type::not_found) {
    std::vector<std::string> warnings;
    const std::vector<std::string> images = images_of_pattern(path, warnings);
    if (images.empty()) throw InputError(path + ": no such file or folder");
    Run run = read_images(path, images);
    run.warnings.insert(run.warnings.end(), warnings.begin(), warnings.end());
    return run;
  }
  if (status.type() == fs::file_type::none) throw InputError(path + ": can't be opened: " + error.message());
  if (status.type() == fs::file_type::directory) return read_folder(path);
  if (status.type() != fs::file_type::regular) throw InputError(path + ": not a regular file or a folder");
  const ByteSource file = ByteSource::file(path);
  if (!looks_like_dicom(file)) {
    if (is_video_name(path)) return read_video(path);
    if (is_image_name(path)) return read_images(path, {path});
  }
  return read_dicom_file(file);
}

}  // namespace

Run read_run(const std::string& path, const ReadOptions& options) {
  if (options.frame_time_ms && !(std::isfinite(*options.frame_time_ms) && *options.frame_time_ms > 0))
    throw std::invalid_argument("read_run: frame_time_ms must be positive");
  if (options.spacing_mm && !(std::isfinite(*options.spacing_mm) && *options.spacing_mm > 0))
    throw std::invalid_argument("read_run: spacing_mm must be positive");
  Run run = open(path);
  run.frames = cache_frames(run.frames, options.cache_bytes);
  if (run.field.mask.empty()) {
    run.field = field_from_header(run.rows(), run.columns(), {}, {}, run.warnings);
  }
  // Headers often tell of the blades but not of the image intensifier's corners: both count.
  run.field = intersection(std::move(run.field), find_field(*run.frames));
  if (options.frame_time_ms) {
    std::erase_if(run.warnings, [](const std::string& warning) { return warning.find(frame_time_hint) != std::string::npos; });
    run.frame_times_ms.clear();
    for (int i = 0; i < run.frame_count(); ++i) run.frame_times_ms.push_back(*options.frame_time_ms * i);
  }
  if (run.frame_times_ms.empty() && run.frame_count() == 1) run.frame_times_ms = {0};
  if (run.frame_times_ms.empty() && run.description.transfer_syntax.empty())
    run.warnings.push_back(std::string("The times of the frames are not known; nothing that depends on time is measured. ") +
                           frame_time_hint);
  if (options.spacing_mm) {
    run.geometry.pixel_spacing_mm = {*options.spacing_mm, *options.spacing_mm};
    run.geometry.pixel_spacing_calibration = "FIDUCIAL";
  }
  return run;
}

}  // namespace cinelumen
