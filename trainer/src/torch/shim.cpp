// The calls of libtorch that tch does not bind. None lets a C++ exception out: each returns a message
// allocated with malloc, or null where all went well.
#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include <cstring>
#include <exception>

namespace {

template <typename F> char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception &failure) {
    return strdup(failure.what());
  } catch (...) {
    return strdup("an exception without a description");
  }
}

} // namespace

extern "C" {

// Switches autocast to bfloat16 on (or off) for one kind of device.
char *evenkeel_autocast_bf16(int cuda, int enabled) {
  return guarded([&] {
    auto device = cuda ? at::kCUDA : at::kCPU;
    at::autocast::set_autocast_dtype(device, at::kBFloat16);
    at::autocast::set_autocast_enabled(device, enabled != 0);
    if (!enabled)
      at::autocast::clear_cache();
  });
}
}
