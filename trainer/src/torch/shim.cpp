// The calls of libtorch that tch does not bind. None lets a C++ exception out: each returns a message
// allocated with malloc, or null where all went well.
#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>

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

// Autocast of one kind of device as it was at another time, for as long as this lives. Its cache of cast
// weights is emptied at both ends: what was cast without a graph must not be taken where one is wanted.
class AutocastAs {
  at::DeviceType device;
  bool enabled;
  at::ScalarType dtype;

public:
  AutocastAs(at::DeviceType device, bool now, at::ScalarType as)
      : device(device), enabled(at::autocast::is_autocast_enabled(device)),
        dtype(at::autocast::get_autocast_dtype(device)) {
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, now);
    at::autocast::set_autocast_dtype(device, as);
  }
  AutocastAs(const AutocastAs &) = delete;
  AutocastAs &operator=(const AutocastAs &) = delete;
  ~AutocastAs() {
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(device, enabled);
    at::autocast::set_autocast_dtype(device, dtype);
  }
};

using Call = char *(*)(const void *state, torch::Tensor *input, torch::Tensor **output);
using Drop = void (*)(void *state);

// A function of one tensor on the other side, with the autocast under which it was first called.
struct Part : torch::CustomClassHolder {
  void *state;
  Call call;
  Drop drop;
  at::DeviceType device;
  bool enabled;
  at::ScalarType dtype;

  Part(void *state, Call call, Drop drop, at::DeviceType device)
      : state(state), call(call), drop(drop), device(device),
        enabled(at::autocast::is_autocast_enabled(device)),
        dtype(at::autocast::get_autocast_dtype(device)) {}
  ~Part() override { drop(state); }

  torch::Tensor operator()(torch::Tensor input) const {
    AutocastAs again(device, enabled, dtype);
    torch::Tensor *output = nullptr;
    if (char *message = call(state, &input, &output)) {
      std::string text(message);
      free(message);
      throw std::runtime_error(text);
    }
    torch::Tensor result = std::move(*output);
    delete output;
    return result;
  }
};

// Keeps a part's input alone, and computes the rest again when gradients are wanted.
struct Recomputed : torch::autograd::Function<Recomputed> {
  static torch::Tensor forward(torch::autograd::AutogradContext *context, const torch::Tensor &input,
                               c10::intrusive_ptr<Part> part) {
    context->save_for_backward({input});
    context->saved_data["part"] = c10::IValue::make_capsule(part);
    return (*part)(input.detach());
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list gradients) {
    auto part = c10::static_intrusive_pointer_cast<Part>(context->saved_data["part"].toCapsule());
    auto input = context->get_saved_variables()[0].detach().requires_grad_(true);
    torch::Tensor output;
    {
      at::AutoGradMode with_graph(true);
      // A view, as the first time there was no leaf either: autocast keeps its casts of leaves, and
      // gradients would add up in bfloat16.
      output = (*part)(input.view_as(input));
    }
    // Gradients of the parameters add up in the parameters; that of the input is passed on.
    torch::autograd::backward({output}, {gradients[0]});
    return {input.grad(), torch::Tensor()};
  }
};

} // namespace

extern "C" {

// Frees a gradient, so that the next backward pass stores one instead of adding to zeros.
char *evenkeel_forget_gradient(torch::Tensor *tensor) {
  return guarded([&] { tensor->mutable_grad().reset(); });
}

// A copy of a text that is not terminated, for messages that come from the other side.
char *evenkeel_message(const char *text, size_t length) { return strndup(text, length); }

// Calls a part without keeping what it computes on the way; takes over `state`.
char *evenkeel_recomputed(torch::Tensor *input, void *state, Call call, Drop drop,
                          torch::Tensor **output) {
  return guarded([&] {
    auto part = c10::make_intrusive<Part>(state, call, drop, input->device().type());
    TORCH_CHECK(input->requires_grad(), "nothing before a recomputed part requires a gradient");
    *output = new torch::Tensor(Recomputed::apply(*input, part));
  });
}

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
