// SPDX-License-Identifier: Apache-2.0
// Adam (Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015), as torch.optim.Adam takes its step.
#pragma once

#include <cmath>
#include <cstddef>

namespace qgf {

// :param step: how many there were before this one, and it.
template <class T>
void adam(std::ptrdiff_t count, T* __restrict__ parameter, const T* __restrict__ gradient, T* __restrict__ mean,
          T* __restrict__ square, double step, double rate, double decay, double decay_square, double epsilon) {
  const T size = T(rate / (1 - std::pow(decay, step)));
  const T root = T(std::sqrt(1 - std::pow(decay_square, step)));
  const T fresh = T(1 - decay), fresh_square = T(1 - decay_square), kept_square = T(decay_square), small = T(epsilon);
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const T g = gradient[i], m = mean[i] + fresh * (g - mean[i]), v = kept_square * square[i] + fresh_square * g * g;
    mean[i] = m;
    square[i] = v;
    parameter[i] -= size * m / (std::sqrt(v) / root + small);
  }
}

}  // namespace qgf
