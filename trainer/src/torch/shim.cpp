// The calls of libtorch that tch does not bind. None lets a C++ exception out: each returns a message
// allocated with malloc, or null where all went well.
#include <ATen/autocast_mode.h>
#include <torch/torch.h>

#include <cstring>
#include <exception>
#include <vector>

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

} // namespace

extern "C" {

struct evenkeel_adam_row {
  at::Tensor *weight, *gradient, *first, *second;
};

struct evenkeel_sgd_row {
  at::Tensor *weight, *gradient, *momentum;
};

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
