// The part of DLPack's binary interface, version 1, by which a framework lets its tensors be read without a copy:
// https://dmlc.github.io/dlpack/latest/c_api.html
#pragma once

#include <cstdint>

namespace rnnkern::dlpack {

constexpr uint32_t kMajorVersion = 1;
constexpr int32_t kCpu = 1;
constexpr uint8_t kFloat = 2;

struct Device {
  int32_t type, id;
};
struct DataType {
  uint8_t code, bits;
  uint16_t lanes;
};
struct Tensor {
  void* data;
  Device device;
  int32_t ndim;
  DataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; nullptr: C-contiguous
  uint64_t byte_offset;
};

// What a type of tensors has under __dlpack_c_exchange_api__.
struct ExchangeApi {
  struct {
    uint32_t major, minor;
  } version;
  void* previous;
  int (*allocate)(Tensor* like, void** out, void* context, void (*set_error)(void*, const char*, const char*));
  int (*owning_from_object)(void* object, void** out);
  int (*object_from_owning)(void* tensor, void** out);
  int (*from_object)(void* object, Tensor* out);  // valid until control is returned; may be nullptr
  int (*current_stream)(int32_t device_type, int32_t device, void** out);
};
constexpr const char* kExchangeApiCapsule = "dlpack_exchange_api";

}  // namespace rnnkern::dlpack
