#pragma once
/// subtracted.dcm: the run after subtraction as a derived multi-frame XA image that any viewer opens.

#include <filesystem>
#include <memory>
#include <string>

#include "engine/analysis.h"
#include "io/pictures.h"

namespace cinelumen {

/// What was done to the frames that are stored.
struct Derivation {
  bool subtracted = true;   ///< false: log attenuation only
  int first_frame = 0;      ///< 0-based in the source
  int frames = 0;           ///< how many will be added
  std::string description;  ///< in words, with every parameter that changes pixels
  std::string version;      ///< of this software
  GreyWindow window;        ///< stored as Window Center and Width
};

/// A UID in the 2.25 root made of the source's UID, the derivation and `purpose` ("instance", "series"): the same input and parameters
/// give the same UID, so a second run does not multiply objects in an archive.
std::string derived_uid(const std::string& source_uid, const Derivation& derivation, const std::string& purpose);

/// Writes frames as they come: 16 bits, MONOCHROME2, value = 32768 - 4096 x added log attenuation, clipped to [0, 65535], JPEG Lossless
/// (process 14, selection value 1). Patient, study, equipment, acquisition and geometry are taken over from the run's file, frame times
/// from the run; private elements, overlays, curves, Mask Module and VOI LUTs are not. Memory does not grow with the number of frames.
class DerivedDicomWriter {
 public:
  /// Throws OutputError where `path` can't be written, InputError where the run's file can't be read again.
  DerivedDicomWriter(const Run& run, const std::filesystem::path& path, const Derivation& derivation);
  ~DerivedDicomWriter();
  /// A frame, compressed: host, rows x columns, added log attenuation; NaN is stored as no attenuation. May be called from several threads
  /// at once: it is by far the longer part of the work.
  std::string encode(ImageView<const float> added_attenuation) const;
  /// Next frame, as encode() gave it.
  void append(const std::string& encoded);
  /// Both.
  void add(ImageView<const float> added_attenuation) { append(encode(added_attenuation)); }
  /// Completes the file. Throws std::logic_error unless Derivation::frames frames were added.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace cinelumen
