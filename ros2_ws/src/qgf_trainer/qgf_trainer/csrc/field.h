// SPDX-License-Identifier: Apache-2.0
// Values of a critic, its field g = grad_a Q and the curvature v^T H_aa v, forward and backward: the equations of
// `qgf_trainer.field_function`, in its notation.
//
// Rows: n of s + eps, n of s', then all of s, of which the first n ("here") have a field. So rows before 3 n have a
// field, and rows from 2 n on have a value.
#pragma once

#include "perceptron.h"

namespace qgf {

template <class T>
void gate_row(int width, const T* __restrict__ bias, T* __restrict__ h, T* __restrict__ gate) {
  for (int j = 0; j < width; ++j) {
    const T z = h[j] + bias[j], q = sigmoid(z);
    h[j] = z * q;
    gate[j] = q;
  }
}

template <class T>
void here_row(int width, const T* __restrict__ bias, const T* __restrict__ tangent, T* __restrict__ h,
              T* __restrict__ gate, T* __restrict__ third, T* __restrict__ p) {
  for (int j = 0; j < width; ++j) {
    const T z = h[j] + bias[j], q = sigmoid(z), f = z * q;
    h[j] = f;
    gate[j] = q;
    third[j] = third_of(z, q);
    p[j] = slope_of(q, f) * tangent[j];
  }
}

template <class T>
void delta_row(int width, const T* __restrict__ u, const T* __restrict__ h, const T* __restrict__ gate,
               T* __restrict__ delta) {
  for (int j = 0; j < width; ++j) delta[j] = u[j] * slope_of(gate[j], h[j]);
}

// sum u f'' t^2.
template <class T>
T second_of(int width, const T* u, const T* h, const T* gate, const T* tangent) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int n = Lanes<T>::kCount;
  const auto at = [](const T* x) { return *(const Vector*)x; };
  const auto term = [](auto u, auto f, auto q, auto t) { return bend_of(q, f, slope_of(q, f)) * t * t * u; };
  Vector sums = {};
  T total = 0;
  int j = 0;
  for (; j + n <= width; j += n) sums += term(at(u + j), at(h + j), at(gate + j), at(tangent + j));
  for (; j < width; ++j) total += term(u[j], h[j], gate[j], tangent[j]);
  for (int lane = 0; lane < n; ++lane) total += sums[lane];
  return total;
}

// In d_u stands the derivative by d.
template <class T>
void up_row(int width, const T* __restrict__ u, const T* __restrict__ h, const T* __restrict__ gate,
            T* __restrict__ delta, T* __restrict__ d_u, T* __restrict__ d_z) {
  for (int j = 0; j < width; ++j) {
    const T d_delta = d_u[j], q = gate[j], f = h[j], slope = slope_of(q, f);
    delta[j] = u[j] * slope;
    d_u[j] = d_delta * slope;
    d_z[j] = bend_of(q, f, slope) * d_delta * u[j];
  }
}

template <class T>
void up_here_row(int width, T c, const T* __restrict__ tangent, const T* __restrict__ third, const T* __restrict__ u,
                 const T* __restrict__ h, const T* __restrict__ gate, T* __restrict__ delta, T* __restrict__ d_u,
                 T* __restrict__ d_z, T* __restrict__ d_t) {
  for (int j = 0; j < width; ++j) {
    const T d_delta = d_u[j], q = gate[j], f = h[j], slope = slope_of(q, f), bend = bend_of(q, f, slope);
    const T t = tangent[j], pulled = c * t, along = pulled * bend;
    delta[j] = u[j] * slope;
    d_u[j] = d_delta * slope + along * t;
    d_z[j] = (bend * d_delta + pulled * t * third[j]) * u[j];
    d_t[j] = T(2) * along * u[j];
  }
}

// d_z = factor by f', added to what a row with a field has already.
template <class T>
void down_row(int width, bool with_field, T factor, const T* __restrict__ by, const T* __restrict__ h,
              const T* __restrict__ gate, T* __restrict__ d_z) {
  if (with_field)
    for (int j = 0; j < width; ++j) d_z[j] += factor * by[j] * slope_of(gate[j], h[j]);
  else
    for (int j = 0; j < width; ++j) d_z[j] = factor * by[j] * slope_of(gate[j], h[j]);
}

template <class T>
void down_here_row(int width, const T* __restrict__ d_p, const T* __restrict__ tangent, const T* __restrict__ h,
                   const T* __restrict__ gate, T* __restrict__ d_z, T* __restrict__ d_t) {
  for (int j = 0; j < width; ++j) {
    const T q = gate[j], f = h[j], slope = slope_of(q, f);
    d_z[j] += d_p[j] * tangent[j] * bend_of(q, f, slope);
    d_t[j] += d_p[j] * slope;
  }
}

// Of one critic: what stays from its forward to its backward pass, and what both only work in. f' and f'' are worked
// out again from f and q wherever they are wanted: that takes less time than to read them. R = 2 n + B rows.
template <class T>
struct Field {
  struct Bent {
    T *h, *gate;                 // R rows: f(z), q = sigmoid(z)
    T* u;                        // 3 n rows, or one for all
    T *third, *tangent, *p;      // n rows: f'''(z), t and f'(z) t
    T *d_z, *delta, *d_u, *d_t;  // R, 3 n, 3 n and n rows, of `work`
  };
  std::vector<Bent> layers;
  T* d_h;  // R rows, of `work`

  Field(const Network<T>& network, int rows, int n, Scratch<T>& keep, Scratch<T>& work) {
    int widest = 0;
    for (int l = 0; l < network.hidden(); ++l) {
      const int width = network.layers[l].out;
      Bent made;
      for (T** array : {&made.h, &made.gate}) *array = keep.take(rows, width);
      made.u = keep.take(l + 1 < network.hidden() ? 3 * n : 1, width);
      for (T** array : {&made.third, &made.tangent, &made.p}) *array = keep.take(n, width);
      made.d_z = work.take(rows, width);
      for (T** array : {&made.delta, &made.d_u}) *array = work.take(3 * n, width);
      made.d_t = work.take(n, width);
      layers.push_back(made);
      widest = std::max(widest, width);
    }
    d_h = work.take(rows, widest);
  }
};

// :param x: (R, n_obs + n_act). :param v: (n, n_act). :param value: (B,). :param g: (3 n, n_act). :param second: (n,).
template <class T>
void field_forward(const Network<T>& network, int rows, int n, int n_act, const T* x, const T* v, T* value, T* g,
                   T* second, T* kept, T* memory) {
  Scratch<T> keep(kept), work(memory);
  const Field<T> field(network, rows, n, keep, work);
  const int depth = network.hidden(), n_obs = network.in() - n_act;
  const auto nothing = [](int, int) {};
  // A row of u, and what becomes of it. At the top all have the same, so that it is done with h, which is at hand then.
  const auto descend_row = [&](int l, int i, const T* u) {
    const auto& bent = field.layers[l];
    const int here = i - 2 * n, width = network.layers[l].out;
    const T *h = row_of(bent.h, i, width), *gate = row_of(bent.gate, i, width);
    delta_row(width, u, h, gate, row_of(bent.delta, i, width));
    if (here >= 0) second[here] += second_of(width, u, h, gate, row_of(bent.tangent, here, width));
  };
  const Layer<T>& last = network.layers[depth];
  T* const top_u = field.layers[depth - 1].u;
  for (int j = 0; j < last.in; ++j) top_u[j] = last.weight[j * last.by_row];
  std::fill(second, second + n, T(0));
  for (int l = 0; l < depth; ++l) {
    const Layer<T>& layer = network.layers[l];
    const auto& bent = field.layers[l];
    const int in = l > 0 ? layer.in : n_act, width = layer.out;
    product<T>(n, width, in, {l > 0 ? field.layers[l - 1].p : v, in, 1}, layer.down().from(layer.in - in, 0),
               bent.tangent, width, false, nothing);
    const auto after = [&, width](int first, int end) {
      for (int i = first; i < end; ++i) {
        const int here = i - 2 * n;
        T *h = row_of(bent.h, i, width), *gate = row_of(bent.gate, i, width);
        if (here < 0 || here >= n)
          gate_row(width, layer.bias, h, gate);
        else
          here_row(width, layer.bias, row_of(bent.tangent, here, width), h, gate, row_of(bent.third, here, width),
                   row_of(bent.p, here, width));
        if (l == depth - 1 && here < n) descend_row(l, i, top_u);
      }
    };
    product<T>(rows, width, layer.in, {l > 0 ? field.layers[l - 1].h : x, layer.in, 1}, layer.down(), bent.h, width,
               false, after);
  }
  affine(last, rows - 2 * n, row_of(field.layers[depth - 1].h, 2 * n, last.in), value, 1);
  for (int l = depth - 2; l >= 0; --l) {
    const Layer<T>& above = network.layers[l + 1];
    const auto& bent = field.layers[l];
    product<T>(3 * n, above.in, above.out, {field.layers[l + 1].delta, above.out, 1}, above.up(), bent.u, above.in,
               false, [&](int first, int end) {
                 for (int i = first; i < end; ++i) descend_row(l, i, row_of(bent.u, i, above.in));
               });
  }
  const Layer<T>& first = network.layers[0];
  product<T>(3 * n, n_act, first.out, {field.layers[0].delta, first.out, 1}, first.up().from(0, n_obs), g, n_act, false,
             nothing);
}

// The derivatives by the three outputs become those by weights and biases, which are written to the layers.
template <class T>
void field_backward(const Network<T>& network, int rows, int n, int n_act, const T* x, const T* v, const T* d_value,
                    const T* d_g, const T* d_second, T* kept, T* memory) {
  Scratch<T> keep(kept), work(memory);
  const Field<T> field(network, rows, n, keep, work);
  const int depth = network.hidden(), n_obs = network.in() - n_act;
  const Layer<T>& last = network.layers[depth];
  const auto& top = field.layers[depth - 1];
  T *by_u = field.d_h, *top_bias = network.layers[depth - 1].d_bias;  // d_h is not in use yet
  std::fill(by_u, by_u + last.in, T(0));
  std::fill(top_bias, top_bias + last.in, T(0));
  const auto down_from_value = [&](int i) {
    T* d_z = row_of(top.d_z, i, last.in);
    if (i >= 2 * n)
      down_row(last.in, i < 3 * n, d_value[i - 2 * n], top.u, row_of(top.h, i, last.in), row_of(top.gate, i, last.in),
               d_z);
    add_row(last.in, d_z, top_bias);
  };
  for (int l = 0; l < depth; ++l) {
    const Layer<T>& layer = network.layers[l];
    const auto& bent = field.layers[l];
    const int in = l > 0 ? layer.in : n_act, width = layer.out;
    const T* below = l > 0 ? field.layers[l - 1].d_u : d_g;
    product<T>(3 * n, width, in, {below, in, 1}, layer.down().from(layer.in - in, 0), bent.d_u, width, false,
               [&, width](int first, int end) {
                 for (int i = first; i < end; ++i) {
                   const int here = i - 2 * n;
                   const T *u = l == depth - 1 ? bent.u : row_of(bent.u, i, width);
                   const T *h = row_of(bent.h, i, width), *gate = row_of(bent.gate, i, width);
                   T *delta = row_of(bent.delta, i, width), *d_u = row_of(bent.d_u, i, width);
                   T* d_z = row_of(bent.d_z, i, width);
                   if (here < 0)
                     up_row(width, u, h, gate, delta, d_u, d_z);
                   else
                     up_here_row(width, d_second[here], row_of(bent.tangent, here, width),
                                 row_of(bent.third, here, width), u, h, gate, delta, d_u, d_z,
                                 row_of(bent.d_t, here, width));
                   if (l < depth - 1) continue;
                   add_row(width, d_u, by_u);
                   down_from_value(i);
                 }
               });
    if (l > 0) add_weight_gradient(layer, 3 * n, below, bent.delta, width, false);
  }
  for (int i = 3 * n; i < rows; ++i) down_from_value(i);
  const int valued = rows - 2 * n;
  add_weight_gradient(last, valued, row_of(top.h, 2 * n, last.in), d_value, 1, false);
  for (int j = 0; j < last.in; ++j) last.d_weight[j * last.by_row] += by_u[j];
  column_sums(valued, 1, d_value, 1, last.d_bias);
  for (int l = depth - 1; l > 0; --l) {
    const Layer<T>& layer = network.layers[l];
    const auto &bent = field.layers[l], &low = field.layers[l - 1];
    const int in = layer.in;
    add_weight_gradient(layer, rows, low.h, bent.d_z, layer.out, true);
    add_weight_gradient(layer, n, low.p, bent.d_t, layer.out, true);
    product<T>(n, in, layer.out, {bent.d_t, layer.out, 1}, layer.up(), field.d_h, in, false, [&](int first, int end) {
      for (int here = first; here < end; ++here) {
        const int i = here + 2 * n;
        down_here_row(in, row_of(field.d_h, here, in), row_of(low.tangent, here, in), row_of(low.h, i, in),
                      row_of(low.gate, i, in), row_of(low.d_z, i, in), row_of(low.d_t, here, in));
      }
    });
    T* d_bias = network.layers[l - 1].d_bias;
    std::fill(d_bias, d_bias + in, T(0));
    product<T>(rows, in, layer.out, {bent.d_z, layer.out, 1}, layer.up(), field.d_h, in, false,
               [&, d_bias](int first, int end) {
                 for (int i = first; i < end; ++i) {
                   T* d_z = row_of(low.d_z, i, in);
                   down_row(in, i < 3 * n, T(1), row_of(field.d_h, i, in), row_of(low.h, i, in), row_of(low.gate, i, in),
                            d_z);
                   add_row(in, d_z, d_bias);
                 }
               });
  }
  Layer<T> first = network.layers[0];
  const auto& bottom = field.layers[0];
  add_weight_gradient(first, rows, x, bottom.d_z, first.out, false);
  first.d_weight += n_obs * first.by_row;
  first.in = n_act;
  add_weight_gradient(first, 3 * n, d_g, bottom.delta, first.out, true);
  add_weight_gradient(first, n, v, bottom.d_t, first.out, true);
}

}  // namespace qgf
