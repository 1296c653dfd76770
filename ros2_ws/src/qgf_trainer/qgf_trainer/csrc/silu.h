// SPDX-License-Identifier: Apache-2.0
// SiLU, f(z) = z q with q = sigmoid(z), and its derivatives, written so that a compiler makes vectors of a loop of them.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

namespace qgf {

inline double exponential(double x) { return std::exp(x); }

// e^x within 4e-7 of itself where that matters here: 2^(k + f), |f| <= 1/2, 2^f by its Taylor series. What is not a
// number stays so; beyond 2^+-125 it stays as it is there.
inline float exponential(float x) {
  float t = x * 1.44269504f;
  t = t < -125.0f ? -125.0f : t;
  t = t > 125.0f ? 125.0f : t;
  const float shifted = t + 12582912.0f;  // 1.5 * 2^23: the sum's last bits are the nearest integer
  const float f = t - (shifted - 12582912.0f);
  float e = 1.54035304e-4f;  // log(2)^n / n!
  e = e * f + 1.33335581e-3f;
  e = e * f + 9.61812911e-3f;
  e = e * f + 5.55041087e-2f;
  e = e * f + 2.40226507e-1f;
  e = e * f + 6.93147181e-1f;
  e = e * f + 1.0f;
  std::uint32_t bits, power;
  std::memcpy(&bits, &e, sizeof bits);
  std::memcpy(&power, &shifted, sizeof power);
  bits += power << 23;
  std::memcpy(&e, &bits, sizeof e);
  return e;
}

template <class T>
inline T sigmoid(T z) {
  return T(1) / (T(1) + exponential(-z));
}

// f' from q and f.
template <class T>
inline T slope_of(T q, T f) {
  return q + f * (1 - q);
}

// f'' from q, f and f'.
template <class T>
inline T bend_of(T q, T f, T slope) {
  return (slope + q - f * q) * (1 - q);
}

// f''' from z and q.
template <class T>
inline T third_of(T z, T q) {
  const T rest = T(1) - q, r = q * rest, m = rest - q;
  return ((z * m + T(3)) * m - T(2) * z * r) * r;
}

}  // namespace qgf
