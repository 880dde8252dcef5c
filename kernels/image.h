#pragma once
/// Planes of pixels and arrays of numbers: owners and non-owning views. Always (y, x), height x width.

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <type_traits>

#include "stream.h"

#ifdef __CUDACC__
#define CINELUMEN_HOST_DEVICE __host__ __device__
#else
#define CINELUMEN_HOST_DEVICE
#endif

namespace cinelumen {

/// Non-owning pitched view of one plane. pitch is in elements and may exceed the width (sub-views, padded rows).
template <class T>
struct ImageView {
  T* data = nullptr;
  int height = 0, width = 0;
  std::ptrdiff_t pitch = 0;

  CINELUMEN_HOST_DEVICE T* row(int y) const { return data + y * pitch; }
  CINELUMEN_HOST_DEVICE T& operator()(int y, int x) const { return row(y)[x]; }
  /// The height x width part whose first pixel is (y, x); the caller keeps it inside.
  CINELUMEN_HOST_DEVICE ImageView part(int y, int x, int part_height, int part_width) const {
    return {row(y) + x, part_height, part_width, pitch};
  }
  operator ImageView<const T>() const requires(!std::is_const_v<T>) { return {data, height, width, pitch}; }
};

/// True where both views have the same height and width.
template <class A, class B>
bool same_size(const ImageView<A>& a, const ImageView<B>& b) {
  return a.height == b.height && a.width == b.width;
}

/// Non-owning view of `size` contiguous elements.
template <class T>
struct ArrayView {
  T* data = nullptr;
  int size = 0;

  CINELUMEN_HOST_DEVICE T& operator[](int i) const { return data[i]; }
  CINELUMEN_HOST_DEVICE T* begin() const { return data; }
  CINELUMEN_HOST_DEVICE T* end() const { return data + size; }
  operator ArrayView<const T>() const requires(!std::is_const_v<T>) { return {data, size}; }
};

/// Owner of one plane in memory that a stream's kernels can reach, or in host memory. Move-only, uninitialised; rows start on 64 bytes.
/// An image made on a CUDA stream is allocated and freed in that stream's order.
template <class T>
class Image {
 public:
  Image() = default;
  /// Memory of the stream's device. height and width >= 0.
  Image(const Stream& stream, int height, int width)
      : Image(&stream, stream.on_cuda() ? MemoryKind::device : MemoryKind::host, height, width) {}
  /// Host memory.
  Image(int height, int width) : Image(nullptr, MemoryKind::host, height, width) {}
  /// Host memory for copies to and from the stream's device: page-locked where that is CUDA.
  static Image staging(const Stream& stream, int height, int width) {
    return Image(&stream, stream.on_cuda() ? MemoryKind::pinned : MemoryKind::host, height, width);
  }
  Image(Image&&) noexcept = default;
  Image& operator=(Image&&) noexcept = default;

  int height() const { return view_.height; }
  int width() const { return view_.width; }
  bool empty() const { return view_.data == nullptr; }
  ImageView<T> view() { return view_; }
  ImageView<const T> view() const { return view_; }
  operator ImageView<T>() { return view_; }
  operator ImageView<const T>() const { return view_; }
  /// Host memory only.
  T* row(int y) { return view_.row(y); }
  const T* row(int y) const { return view_.row(y); }
  T& operator()(int y, int x) { return view_(y, x); }
  const T& operator()(int y, int x) const { return view_(y, x); }

 private:
  Image(const Stream* stream, MemoryKind kind, int height, int width) {
    if (height < 0 || width < 0) throw std::invalid_argument("Image: height and width must not be negative");
    constexpr std::ptrdiff_t alignment = 64 / (sizeof(T) < 64 ? sizeof(T) : 64);
    const std::ptrdiff_t pitch = (width + alignment - 1) / alignment * alignment;
    memory_ = detail::allocate(stream, kind, sizeof(T) * static_cast<std::size_t>(pitch) * static_cast<std::size_t>(height));
    view_ = {static_cast<T*>(memory_.get()), height, width, pitch};
  }
  std::shared_ptr<void> memory_;
  ImageView<T> view_;
};

/// Owner of `size` contiguous elements; see Image.
template <class T>
class Array {
 public:
  Array() = default;
  /// Memory of the stream's device. size >= 0.
  Array(const Stream& stream, int size) : image_(stream, size > 0 ? 1 : 0, size) {}
  /// Host memory.
  explicit Array(int size) : image_(size > 0 ? 1 : 0, size) {}
  /// Host memory for copies, page-locked where the stream is CUDA.
  static Array staging(const Stream& stream, int size) {
    Array result;
    result.image_ = Image<T>::staging(stream, size > 0 ? 1 : 0, size);
    return result;
  }
  int size() const { return image_.width(); }
  ArrayView<T> view() { return {image_.view().data, size()}; }
  ArrayView<const T> view() const { return {image_.view().data, size()}; }
  operator ArrayView<T>() { return view(); }
  operator ArrayView<const T>() const { return view(); }
  T& operator[](int i) { return image_(0, i); }
  const T& operator[](int i) const { return image_(0, i); }
  T* begin() { return image_.view().data; }
  T* end() { return begin() + size(); }
  const T* begin() const { return image_.view().data; }
  const T* end() const { return begin() + size(); }

 private:
  Image<T> image_;
};

/// Copies pixels between host and the stream's device, either way, in the stream's order. Sizes must agree (std::invalid_argument).
/// With CUDA, host memory must stay alive and unchanged until the stream has been synchronised.
template <class T>
void copy(const Stream& stream, ImageView<const T> from, ImageView<T> to) {
  if (!same_size(from, to)) throw std::invalid_argument("copy: the images differ in size");
  detail::copy_rows(stream, to.data, to.pitch * sizeof(T), from.data, from.pitch * sizeof(T), sizeof(T) * to.width, to.height);
}
template <class T>
void copy(const Stream& stream, const Image<T>& from, Image<T>& to) {
  copy<T>(stream, from.view(), to.view());
}
/// Copies elements between host and device; see above.
template <class T>
void copy(const Stream& stream, ArrayView<const T> from, ArrayView<T> to) {
  if (from.size != to.size) throw std::invalid_argument("copy: the arrays differ in size");
  detail::copy_rows(stream, to.data, 0, from.data, 0, sizeof(T) * to.size, to.size > 0 ? 1 : 0);
}

/// Sets all pixels to zero in the stream's order.
template <class T>
void set_zero(const Stream& stream, ImageView<T> image) {
  detail::zero_rows(stream, image.data, image.pitch * sizeof(T), sizeof(T) * image.width, image.height);
}
template <class T>
void set_zero(const Stream& stream, ArrayView<T> array) {
  detail::zero_rows(stream, array.data, 0, sizeof(T) * array.size, array.size > 0 ? 1 : 0);
}

/// A copy of `from` in memory of the stream's device.
template <class T>
Image<std::remove_const_t<T>> to_device(const Stream& stream, ImageView<T> from) {
  Image<std::remove_const_t<T>> result(stream, from.height, from.width);
  copy<std::remove_const_t<T>>(stream, from, result);
  return result;
}
/// A copy of `from` in host memory, complete when it returns (synchronises the stream).
template <class T>
Image<std::remove_const_t<T>> to_host(const Stream& stream, ImageView<T> from) {
  Image<std::remove_const_t<T>> result(from.height, from.width);
  copy<std::remove_const_t<T>>(stream, from, result);
  stream.synchronize();
  return result;
}

}  // namespace cinelumen
