// SPDX-License-Identifier: Apache-2.0
// Matrix products for one thread, on blocks that fit the processor's caches, after Goto and van de Geijn, "Anatomy of
// High-Performance Matrix Multiplication", ACM TOMS 34 (2008). What follows a product is done to each block of rows
// while the first-level cache still has it: that is why this is not a library's.
#pragma once

#include <algorithm>
#include <cstddef>
#include <type_traits>
#include <utility>
#include <vector>

namespace qgf {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kMostRows = 14;  // 28 sums, two of b and one of a fill 32 registers
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kMostRows = 6;  // of 16 registers
#else
constexpr int kVectorBytes = 16, kMostRows = 6;
#endif
constexpr int kMostDepth = 256;  // of a block: 16 columns of it fit the first-level cache
constexpr int kAhead = 16;       // rows of b, on their way from the second-level cache

template <class T>
struct Lanes {
  static constexpr int kCount = kVectorBytes / sizeof(T);
  using Whole = std::conditional_t<sizeof(T) == 4, int, long long>;
  typedef T Vector __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
  typedef Whole Index __attribute__((vector_size(kVectorBytes)));
};

// A view of numbers that lie `by_row` and `by_column` apart.
template <class T>
struct Matrix {
  T* data;
  std::ptrdiff_t by_row, by_column;

  T& operator()(std::ptrdiff_t i, std::ptrdiff_t j) const { return data[i * by_row + j * by_column]; }
  Matrix transposed() const { return {data, by_column, by_row}; }
  Matrix from(int i, int j) const { return {&(*this)(i, j), by_row, by_column}; }
};

// The square of these vectors by log2(n) perfect shuffles.
template <class T>
inline void transpose(typename Lanes<T>::Vector (&x)[Lanes<T>::kCount]) {
  constexpr int n = Lanes<T>::kCount;
  typename Lanes<T>::Index low, high;
  for (int j = 0; j < n; ++j) {
    low[j] = j / 2 + (j % 2) * n;
    high[j] = low[j] + n / 2;
  }
  for (int round = 1; round < n; round *= 2) {
    typename Lanes<T>::Vector y[n];
#pragma GCC unroll 16
    for (int i = 0; i < n / 2; ++i) {
      y[2 * i] = __builtin_shuffle(x[i], x[i + n / 2], low);
      y[2 * i + 1] = __builtin_shuffle(x[i], x[i + n / 2], high);
    }
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) x[i] = y[i];
  }
}

// `from` (depth, width), width at most one vector: its rows as vectors at to, to + step and so on. What lies beside the
// width is never looked at, but is put there.
template <class T>
void pack(const Matrix<const T>& from, int depth, int width, T* to, int step) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int n = Lanes<T>::kCount;
  int k = 0;
  if (from.by_column == 1 && from.by_row + width >= n) {
    const int inside = width == n ? depth : depth - 1;  // a whole vector of the last row may reach beyond the matrix
    for (; k < inside; ++k) *(Vector*)(to + k * step) = *(const Vector*)&from(k, 0);
  } else if (from.by_row == 1) {
    for (; k + n <= depth; k += n) {
      Vector x[n];
#pragma GCC unroll 16
      for (int j = 0; j < n; ++j) x[j] = *(const Vector*)&from(k, std::min(j, width - 1));
      transpose<T>(x);
#pragma GCC unroll 16
      for (int i = 0; i < n; ++i) *(Vector*)(to + (k + i) * step) = x[i];
    }
  }
  for (; k < depth; ++k)
    for (int j = 0; j < n; ++j) to[k * step + j] = j < width ? from(k, j) : T(0);
}

// to (rows, width) = a (rows, depth) b (depth, width), or added to it. The numbers of a lie next to each other along its
// rows (`along`) or else down its columns, and those of the other direction `apart`; the rows of b lie `across`.
template <class T, int rows, int vectors, bool along>
void tile(int depth, const T* a, std::ptrdiff_t apart, const T* b, std::ptrdiff_t across, T* to, std::ptrdiff_t step,
          int width, bool add) {
  using Vector = typename Lanes<T>::Vector;
  constexpr int n = Lanes<T>::kCount, starts = (rows + 2) / 3;
  const std::ptrdiff_t down = along ? apart : 1, onward = along ? 1 : apart;
  Vector sum[rows][vectors] = {};
  const T* start[starts];  // of every third row: the two behind it are within reach of an instruction's address
  for (int i = 0; i < starts; ++i) start[i] = a + 3 * i * down;
  for (int i = 0; i < rows; ++i)
    for (int v = 0; v < vectors; ++v) __builtin_prefetch(to + i * step + v * n, 1);
#pragma GCC unroll 4
  for (int k = 0; k < depth; ++k, b += across) {
    Vector y[vectors];
    for (int v = 0; v < vectors; ++v) {
      y[v] = *(const Vector*)(b + v * n);
      __builtin_prefetch(b + kAhead * across + v * n);
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; ++i)
      for (int v = 0; v < vectors; ++v) sum[i][v] += y[v] * start[i / 3][i % 3 * down];
    for (const T*& place : start) place += onward;
  }
#pragma GCC unroll 16
  for (int i = 0; i < rows; ++i) {
    T* row = to + i * step;
    if (width == vectors * n) {
      for (int v = 0; v < vectors; ++v) {
        Vector& place = *(Vector*)(row + v * n);
        place = add ? place + sum[i][v] : sum[i][v];
      }
    } else {
      const T* found = (const T*)sum[i];
      for (int j = 0; j < width; ++j) row[j] = add ? row[j] + found[j] : found[j];
    }
  }
}

template <class T>
using Tile = void (*)(int, const T*, std::ptrdiff_t, const T*, std::ptrdiff_t, T*, std::ptrdiff_t, int, bool);

template <class T, int vectors, bool along, int... rows>
Tile<T> tile_of(int count, std::integer_sequence<int, rows...>) {
  static constexpr Tile<T> tiles[] = {tile<T, rows + 1, vectors, along>...};
  return tiles[count - 1];
}

template <class T>
Tile<T> tile_of(int rows, int vectors, bool along) {
  constexpr auto most_rows = std::make_integer_sequence<int, kMostRows>();
  if (along) return vectors == 1 ? tile_of<T, 1, true>(rows, most_rows) : tile_of<T, 2, true>(rows, most_rows);
  return vectors == 1 ? tile_of<T, 1, false>(rows, most_rows) : tile_of<T, 2, false>(rows, most_rows);
}

// Memory that a thread keeps, from a multiple of 64 bytes on.
template <class T>
T* workspace(std::size_t count) {
  thread_local std::vector<T> space;
  if (space.size() < count + 64) space.resize(count + 64);
  return (T*)(((std::size_t)space.data() + 63) & ~std::size_t(63));
}

// Asks for these rows of a, which lie in the third-level cache or beyond, while others are worked on.
template <class T>
void fetch(const Matrix<const T>& a, int rows, int depth) {
  constexpr int line = 64 / sizeof(T);
  if (a.by_column == 1)
    for (int i = 0; i < rows; ++i)
      for (int k = 0; k < depth; k += line) __builtin_prefetch(&a(i, k), 0, 2);
  else
    for (int k = 0; k < depth; ++k) __builtin_prefetch(&a(0, k), 0, 2);
}

// to (m, n) = a (m, depth) b (depth, n), or added to it. The numbers of a lie next to each other along its rows or down
// its columns. `after(first, end)` is called when these rows are done.
template <class T, class After>
void product(int m, int n, int depth, Matrix<const T> a, Matrix<const T> b, T* to, std::ptrdiff_t step, bool add,
             After after) {
  constexpr int lanes = Lanes<T>::kCount;
  const bool along = a.by_column == 1;
  const int panel = n <= lanes ? lanes : 2 * lanes, panels = (n + panel - 1) / panel;
  const int parts = std::max(1, (depth + kMostDepth - 1) / kMostDepth), blocks = (m + kMostRows - 1) / kMostRows;
  for (int part = 0, k = 0; part < parts; ++part) {
    const int deep = depth * (part + 1) / parts - k;
    T* right = workspace<T>(std::size_t(deep) * panels * panel);
    const int straight = b.by_column == 1 ? n / panel * panel : 0;  // columns that are read where they lie
    for (int j = straight; j < n; j += lanes)
      pack<T>(b.from(k, j), deep, std::min(lanes, n - j), right + std::size_t(j / panel * panel) * deep + j % panel,
              panel);
    for (int block = 0, i = 0; block < blocks; ++block) {
      const int end = m * (block + 1) / blocks, rows = end - i;
      if (block + 1 < blocks) fetch(a.from(end, k), m * (block + 2) / blocks - end, deep);
      const auto run = tile_of<T>(rows, panel / lanes, along);
      for (int j = 0; j < n; j += panel)
        run(deep, &a(i, k), along ? a.by_row : a.by_column, j < straight ? &b(k, j) : right + std::size_t(j) * deep,
            j < straight ? b.by_row : panel, to + i * step + j, step, std::min(panel, n - j), add || part > 0);
      if (part + 1 == parts) after(i, end);
      i = end;
    }
    k += deep;
  }
}

}  // namespace qgf
