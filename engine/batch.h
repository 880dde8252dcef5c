#pragma once
/// Several runs at a time: one on each device.

#include <functional>
#include <vector>

#include "kernels/stream.h"

namespace cinelumen {

/// Runs body(item, stream) for items 0 ... count - 1, one at a time on each of `streams` (at least one, else std::invalid_argument), each
/// stream's on a thread of its own: the next item goes to the device that is free first. Returns when all are done. No item is begun after
/// an exception; the first is rethrown when what runs has stopped. Which device an item went to changes nothing in its result where devices
/// are of one kind.
void over_devices(const std::vector<Stream>& streams, int count, const std::function<void(int item, const Stream& stream)>& body);

}  // namespace cinelumen
