// The calls of libtorch that tch does not bind. None lets a C++ exception out: each returns a message
// allocated with malloc, or null where all went well.
#include <ATen/autocast_mode.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <torch/torch.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <vector>
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

// The tensor itself, or its values in the order in memory of another one: the fused kernels walk through
// memory, and check neither shapes nor strides on a CPU.
at::Tensor laid_out(const at::Tensor &tensor, const at::Tensor &like) {
  TORCH_CHECK(tensor.sizes() == like.sizes() && tensor.scalar_type() == like.scalar_type() &&
                  tensor.device() == like.device(),
              "a gradient or state of shape ", tensor.sizes(), " for a parameter of shape ", like.sizes(),
              ", or of another type or device");
  if (tensor.strides() == like.strides())
    return tensor;
  return at::empty_like(like).copy_(tensor);
}

// For what the kernel writes to, where a copy would be lost.
const at::Tensor &in_place(const at::Tensor &tensor, const at::Tensor &like) {
  TORCH_CHECK(tensor.is_non_overlapping_and_dense() && tensor.is_same(laid_out(tensor, like)),
              "a parameter or state of shape ", tensor.sizes(), " does not lie densely in memory");
  return tensor;
}

std::vector<at::Tensor> list(at::Tensor *const *tensors, size_t count) {
  std::vector<at::Tensor> list;
  list.reserve(count);
  for (size_t i = 0; i < count; ++i)
    list.push_back(*tensors[i]);
  return list;
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

struct evenkeel_adam_row {
  at::Tensor *weight, *gradient, *first, *second;
};

struct evenkeel_sgd_row {
  at::Tensor *weight, *gradient, *momentum;
};
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

// The bytes that a GPU has left, other programs' use of it taken off.
char *evenkeel_free_memory(int gpu, uint64_t *bytes) {
  return guarded([&] {
    auto index = static_cast<c10::DeviceIndex>(gpu);
    *bytes = at::getDeviceAllocator(at::kCUDA)->getMemoryInfo(index).first;
  });
}

// One step of Adam or AdamW for parameters that share everything but their tensors.
char *evenkeel_adam(const evenkeel_adam_row *rows, size_t count, int decoupled, double step, double rate,
                    double beta1, double beta2, double decay, double epsilon) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> weights, gradients, firsts, seconds, steps;
    for (size_t i = 0; i < count; ++i) {
      auto &weight = *rows[i].weight;
      weights.push_back(in_place(weight, weight));
      gradients.push_back(laid_out(*rows[i].gradient, weight));
      firsts.push_back(in_place(*rows[i].first, weight));
      seconds.push_back(in_place(*rows[i].second, weight));
    }
    if (weights.empty())
      return;
    // The kernels only read it, so that one serves for all.
    steps.assign(count, at::full({}, step, weights[0].options().dtype(at::kFloat)));
    auto kernel = decoupled ? &at::_ops::_fused_adamw_::call : &at::_ops::_fused_adam_::call;
    kernel(weights, gradients, firsts, seconds, {}, steps, rate, beta1, beta2, decay, epsilon,
           /*amsgrad=*/false, /*maximize=*/false, {}, {});
  });
}

// One step of SGD, likewise, all with momentum or none; at the first step the momentum becomes the gradient.
char *evenkeel_sgd(const evenkeel_sgd_row *rows, size_t count, int first, double rate, double momentum,
                   double decay) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    std::vector<at::Tensor> weights, gradients, momenta;
    for (size_t i = 0; i < count; ++i) {
      auto &weight = *rows[i].weight;
      weights.push_back(in_place(weight, weight));
      gradients.push_back(laid_out(*rows[i].gradient, weight));
      if (rows[i].momentum)
        momenta.push_back(in_place(*rows[i].momentum, weight));
    }
    if (weights.empty())
      return;
    at::_fused_sgd_(weights, gradients, momenta, decay, momentum, rate, /*dampening=*/0.0,
                    /*nesterov=*/false, /*maximize=*/false, first != 0);
  });
}

// The Euclidean norm of all elements of all tensors.
char *evenkeel_norm(at::Tensor *const *tensors, size_t count, double *norm) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    *norm = 0.0;
    if (count == 0)
      return;
    auto norms = at::_foreach_norm(list(tensors, count), 2);
    for (auto &each : norms)
      each = each.to(at::kDouble);
    *norm = at::linalg_vector_norm(at::stack(norms), 2).item<double>();
  });
}

// Multiplies all of them.
char *evenkeel_scale(at::Tensor *const *tensors, size_t count, double factor) {
  return guarded([&] {
    at::NoGradGuard no_grad;
    if (count != 0)
      at::_foreach_mul_(list(tensors, count), factor);
  });
}

// Takes the gradients away, instead of filling them with zeros.
char *evenkeel_clear_gradients(at::Tensor *const *tensors, size_t count) {
  return guarded([&] {
    for (size_t i = 0; i < count; ++i)
      tensors[i]->mutable_grad().reset();
  });
}
}
