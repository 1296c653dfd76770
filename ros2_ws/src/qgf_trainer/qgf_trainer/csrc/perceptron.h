// SPDX-License-Identifier: Apache-2.0
// A perceptron with SiLU between its layers: forward, and the derivatives backward. Arrays lie row by row without gaps.
#pragma once

#include <vector>

#include "product.h"
#include "silu.h"

namespace qgf {

using Stride = std::ptrdiff_t;

// z = x W + b with W (in, out). What is derived by the two is written to d_weight, of the same strides, and d_bias.
template <class T>
struct Layer {
  const T *weight, *bias;
  T *d_weight, *d_bias;
  Stride by_row, by_column;
  int in, out;

  Matrix<const T> down() const { return {weight, by_row, by_column}; }
  Matrix<const T> up() const { return down().transposed(); }
};

// The last `heads` layers all take what the last hidden one gives; their outputs lie side by side.
template <class T>
struct Network {
  const Layer<T>* layers;
  int depth, heads;

  int hidden() const { return depth - heads; }
  int in() const { return layers[0].in; }
  int out() const {
    int sum = 0;
    for (int l = hidden(); l < depth; ++l) sum += layers[l].out;
    return sum;
  }
};

// Hands out parts of one piece of memory; of none, to learn how much it would be.
template <class T>
class Scratch {
 public:
  explicit Scratch(T* start) : start_(start) {}

  T* take(Stride rows, Stride width) {
    T* place = start_ ? start_ + used_ : nullptr;
    used_ += (rows * width + 15) / 16 * 16;
    return place;
  }
  Stride used() const { return used_; }

 private:
  T* start_;
  Stride used_ = 0;
};

template <class T>
T* row_of(T* x, Stride i, int width) {
  return x + i * width;
}

template <class T>
void add_row(int width, const T* __restrict__ row, T* __restrict__ sum) {
  for (int j = 0; j < width; ++j) sum[j] += row[j];
}

template <class T>
void column_sums(int rows, int width, const T* x, Stride step, T* sum) {
  std::fill(sum, sum + width, T(0));
  for (int i = 0; i < rows; ++i) add_row(width, x + i * step, sum);
}

template <class T>
void silu_row(int width, const T* __restrict__ bias, T* __restrict__ h) {
  for (int j = 0; j < width; ++j) {
    const T z = h[j] + bias[j];
    h[j] = z * sigmoid(z);
  }
}

template <class T>
void slope_row(int width, const T* __restrict__ bias, T* __restrict__ h, T* __restrict__ slope) {
  for (int j = 0; j < width; ++j) {
    const T z = h[j] + bias[j], q = sigmoid(z), f = z * q;
    h[j] = f;
    slope[j] = slope_of(q, f);
  }
}

template <class T>
void scale_row(int width, const T* __restrict__ slope, T* __restrict__ row) {
  for (int j = 0; j < width; ++j) row[j] *= slope[j];
}

template <class T>
void add_multiple(int width, T factor, const T* __restrict__ row, T* __restrict__ sum) {
  for (int j = 0; j < width; ++j) sum[j] += factor * row[j];
}

template <class T>
T dot(int width, const T* x, const T* y) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int n = Lanes<T>::kCount;
  Vector sums[4] = {};
  T total = 0;
  int j = 0;
  for (; j + 4 * n <= width; j += 4 * n)
    for (int k = 0; k < 4; ++k) sums[k] += *(const Vector*)(x + j + k * n) * *(const Vector*)(y + j + k * n);
  for (; j < width; ++j) total += x[j] * y[j];
  const Vector sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
  for (int lane = 0; lane < n; ++lane) total += sum[lane];
  return total;
}

// Whether the layer has one output and weights without gaps: a product of it would work on a whole vector of outputs.
template <class T>
bool single(const Layer<T>& layer) {
  return layer.out == 1 && layer.by_row == 1;
}

// z (rows, out), whose rows lie `step` apart, of x (rows, in).
template <class T>
void affine(const Layer<T>& layer, int rows, const T* x, T* z, Stride step) {
  if (single(layer)) {
    for (int i = 0; i < rows; ++i) z[i * step] = dot(layer.in, row_of(x, i, layer.in), layer.weight) + layer.bias[0];
    return;
  }
  product<T>(rows, layer.out, layer.in, {x, layer.in, 1}, layer.down(), z, step, false, [=, &layer](int first, int end) {
    for (int i = first; i < end; ++i) add_row(layer.out, layer.bias, z + i * step);
  });
}

// The layer's d_weight = x^T d_z (in, out), or added to it, of x (rows, in) and d_z (rows, out), which lies `step` apart.
template <class T>
void add_weight_gradient(const Layer<T>& layer, int rows, const T* x, const T* d_z, Stride step, bool add) {
  const Matrix<const T> left{x, 1, layer.in}, right{d_z, step, 1};
  const auto nothing = [](int, int) {};
  if (single(layer)) {
    if (!add) std::fill(layer.d_weight, layer.d_weight + layer.in, T(0));
    for (int i = 0; i < rows; ++i) add_multiple(layer.in, d_z[i * step], row_of(x, i, layer.in), layer.d_weight);
  } else if (layer.by_column == 1)
    product<T>(layer.in, layer.out, rows, left, right, layer.d_weight, layer.by_row, add, nothing);
  else
    product<T>(layer.out, layer.in, rows, right.transposed(), left.transposed(), layer.d_weight, layer.by_column, add,
               nothing);
}

template <class T>
void multiply_row(int width, T factor, const T* __restrict__ by, const T* __restrict__ slope, T* __restrict__ to) {
  for (int j = 0; j < width; ++j) to[j] = factor * by[j] * slope[j];
}

// From the derivative by the layer's z, whose rows lie `step` apart, that by the z below (rows, in), whose f' is `slope`:
// written `to` it, or added for a further layer that stands on the same, and finished with the `last` of them. The sum
// of its rows is written to d_bias, unless there is none.
template <class T>
void back(const Layer<T>& layer, int rows, const T* d_z, Stride step, const T* slope, T* to, T* d_bias, bool add,
          bool last) {
  const int width = layer.in;
  if (last && d_bias) std::fill(d_bias, d_bias + width, T(0));
  if (single(layer) && last && !add) {
    for (int i = 0; i < rows; ++i) {
      multiply_row(width, d_z[i * step], layer.weight, row_of(slope, i, width), row_of(to, i, width));
      if (d_bias) add_row(width, row_of(to, i, width), d_bias);
    }
    return;
  }
  product<T>(rows, width, layer.out, {d_z, step, 1}, layer.up(), to, width, add, [=](int first, int end) {
    for (int i = first; last && i < end; ++i) {
      scale_row(width, row_of(slope, i, width), row_of(to, i, width));
      if (d_bias) add_row(width, row_of(to, i, width), d_bias);
    }
  });
}

// What a forward pass leaves for the backward one, and two arrays to work in.
template <class T>
struct Kept {
  std::vector<T*> h, slope;
  T* spare[2];

  Kept(const Network<T>& network, int rows, bool keep, Scratch<T>& scratch) {
    int widest = 0;
    for (int l = 0; l < network.hidden(); ++l) {
      const int width = network.layers[l].out;
      if (keep) h.push_back(scratch.take(rows, width));
      if (keep) slope.push_back(scratch.take(rows, width));
      widest = std::max(widest, width);
    }
    for (T*& array : spare) array = scratch.take(rows, widest);
  }
};

// z_L (rows, out) of x (rows, in); with what `descend` needs, if it is to be kept.
template <class T>
void climb(const Network<T>& network, int rows, const T* x, T* z, bool keep, T* memory) {
  Scratch<T> scratch(memory);
  const Kept<T> kept(network, rows, keep, scratch);
  for (int l = 0; l < network.hidden(); ++l) {
    const Layer<T>& layer = network.layers[l];
    const int width = layer.out;
    T *h = keep ? kept.h[l] : kept.spare[l % 2], *slope = keep ? kept.slope[l] : nullptr;
    product<T>(rows, width, layer.in, {x, layer.in, 1}, layer.down(), h, width, false, [=, &layer](int first, int end) {
      for (int i = first; i < end; ++i)
        slope ? slope_row(width, layer.bias, row_of(h, i, width), row_of(slope, i, width))
              : silu_row(width, layer.bias, row_of(h, i, width));
    });
    x = h;
  }
  const int width = network.out();
  for (int l = network.hidden(); l < network.depth; ++l) {
    const Layer<T>& layer = network.layers[l];
    affine(layer, rows, x, z, width);
    z += layer.out;
  }
}

// From the derivative by z_L that by the inputs from `begin` on, if there is a d_x for it, and, if the network's own
// derivatives are wanted, those by its weights and biases.
template <class T>
void descend(const Network<T>& network, int rows, const T* x, const T* d_z, bool own, int begin, T* d_x, T* memory) {
  Scratch<T> scratch(memory);
  const Kept<T> kept(network, rows, true, scratch);
  const auto below = [&](int l) { return l > 0 ? kept.h[l - 1] : x; };
  int l = network.hidden();
  const auto d_bias = [&] { return own ? network.layers[l - 1].d_bias : nullptr; };
  T *to = kept.spare[0], *other = kept.spare[1];
  for (int head = l; head < network.depth; ++head) {
    const Layer<T>& layer = network.layers[head];
    if (own) add_weight_gradient(layer, rows, below(l), d_z, network.out(), false);
    if (own) column_sums(rows, layer.out, d_z, network.out(), layer.d_bias);
    back(layer, rows, d_z, network.out(), kept.slope[l - 1], to, d_bias(), head > l, head + 1 == network.depth);
    d_z += layer.out;
  }
  while (true) {
    const Layer<T>& layer = network.layers[--l];
    if (own) add_weight_gradient(layer, rows, below(l), to, layer.out, false);
    if (l == 0) break;
    back(layer, rows, to, layer.out, kept.slope[l - 1], other, d_bias(), false, true);
    std::swap(to, other);
  }
  if (!d_x) return;
  const Layer<T>& first = network.layers[0];
  product<T>(rows, first.in - begin, first.out, {to, first.out, 1}, first.up().from(0, begin), d_x, first.in - begin,
             false, [](int, int) {});
}

// Values (rows,) of x and the derivatives of weight * sum (value - target)^2, which are written to the layers.
template <class T>
void regress(const Network<T>& network, int rows, const T* x, const T* target, T weight, T* value, T* memory) {
  Scratch<T> scratch(memory);
  T* d_value = scratch.take(rows, 1);
  T* rest = scratch.take(0, 0);
  climb(network, rows, x, value, true, rest);
  for (int i = 0; i < rows; ++i) d_value[i] = T(2) * weight * (value[i] - target[i]);
  descend(network, rows, x, d_value, true, 0, (T*)nullptr, rest);
}

// The derivatives of -mean Q(s, tanh pi(s)), s (rows, n_obs), by the actor pi: written to its layers.
template <class T>
void ascend(const Network<T>& actor, const Network<T>& critic, int rows, const T* s, T* memory) {
  Scratch<T> scratch(memory), measure(nullptr);
  Kept<T>(actor, rows, true, measure);
  const int n_obs = actor.in(), n_act = actor.out(), both = n_obs + n_act;
  T *action = scratch.take(rows, n_act), *d_action = scratch.take(rows, n_act), *x = scratch.take(rows, both);
  T *value = scratch.take(rows, 1), *of_actor = scratch.take(1, measure.used()), *of_critic = scratch.take(0, 0);
  climb(actor, rows, s, action, true, of_actor);
  for (int i = 0; i < rows; ++i) {
    std::copy_n(s + Stride(i) * n_obs, n_obs, x + Stride(i) * both);
    for (int j = 0; j < n_act; ++j) {
      T& a = action[Stride(i) * n_act + j];
      a = std::tanh(a);
      x[Stride(i) * both + n_obs + j] = a;
    }
  }
  climb(critic, rows, x, value, true, of_critic);
  std::fill(value, value + rows, T(-1) / rows);
  descend(critic, rows, x, value, false, n_obs, d_action, of_critic);
  for (Stride k = 0; k < Stride(rows) * n_act; ++k) d_action[k] *= 1 - action[k] * action[k];
  descend(actor, rows, s, d_action, true, 0, (T*)nullptr, of_actor);
}

}  // namespace qgf
