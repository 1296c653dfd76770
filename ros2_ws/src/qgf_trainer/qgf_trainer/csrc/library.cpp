// SPDX-License-Identifier: Apache-2.0
// What `qgf_trainer.native` calls, by name, for single and double precision.

#include "adam.h"
#include "field.h"

namespace qgf {
namespace {

template <class T>
Stride climb_memory(const Network<T>* network, int rows, int keep) {
  Scratch<T> scratch(nullptr);
  Kept<T>(*network, rows, keep, scratch);
  return scratch.used();
}

template <class T>
void climb_once(const Network<T>* network, int rows, const T* x, T* z, int keep, T* memory) {
  climb(*network, rows, x, z, keep, memory);
}

template <class T>
void descend_once(const Network<T>* network, int rows, const T* x, const T* d_z, int own, int begin, T* d_x,
                  T* memory) {
  descend(*network, rows, x, d_z, own, begin, d_x, memory);
}

template <class T>
Stride regress_memory(const Network<T>* network, int rows) {
  Scratch<T> scratch(nullptr);
  scratch.take(rows, 1);
  Kept<T>(*network, rows, true, scratch);
  return scratch.used();
}

template <class T>
void regress_once(const Network<T>* network, int rows, const T* x, const T* target, double weight, T* value,
                  T* memory) {
  regress(*network, rows, x, target, T(weight), value, memory);
}

template <class T>
Stride ascend_memory(const Network<T>* actor, const Network<T>* critic, int rows) {
  Scratch<T> scratch(nullptr);
  for (int width : {actor->out(), actor->out(), actor->in() + actor->out(), 1}) scratch.take(rows, width);
  Kept<T>(*actor, rows, true, scratch);
  Kept<T>(*critic, rows, true, scratch);
  return scratch.used();
}

template <class T>
void ascend_once(const Network<T>* actor, const Network<T>* critic, int rows, const T* s, T* memory) {
  ascend(*actor, *critic, rows, s, memory);
}

template <class T>
Stride field_kept(const Network<T>* network, int rows, int n) {
  Scratch<T> keep(nullptr), work(nullptr);
  Field<T>(*network, rows, n, keep, work);
  return keep.used();
}

template <class T>
Stride field_memory(const Network<T>* network, int rows, int n) {
  Scratch<T> keep(nullptr), work(nullptr);
  Field<T>(*network, rows, n, keep, work);
  return work.used();
}

template <class T>
void field_forward_once(const Network<T>* network, int rows, int n, int n_act, const T* x, const T* v, T* value, T* g,
                        T* second, T* kept, T* memory) {
  field_forward(*network, rows, n, n_act, x, v, value, g, second, kept, memory);
}

template <class T>
void field_backward_once(const Network<T>* network, int rows, int n, int n_act, const T* x, const T* v,
                         const T* d_value, const T* d_g, const T* d_second, T* kept, T* memory) {
  field_backward(*network, rows, n, n_act, x, v, d_value, d_g, d_second, kept, memory);
}

struct Named {
  const char* name;
  void* function;
};

template <class T>
const Named kFunctions[] = {
    {"climb_memory", (void*)climb_memory<T>},
    {"climb", (void*)climb_once<T>},
    {"descend", (void*)descend_once<T>},
    {"regress_memory", (void*)regress_memory<T>},
    {"regress", (void*)regress_once<T>},
    {"ascend_memory", (void*)ascend_memory<T>},
    {"ascend", (void*)ascend_once<T>},
    {"adam", (void*)adam<T>},
    {"field_kept", (void*)field_kept<T>},
    {"field_memory", (void*)field_memory<T>},
    {"field_forward", (void*)field_forward_once<T>},
    {"field_backward", (void*)field_backward_once<T>},
    {nullptr, nullptr},
};

}  // namespace
}  // namespace qgf

extern "C" {
const qgf::Named* qgf_single() { return qgf::kFunctions<float>; }
const qgf::Named* qgf_double() { return qgf::kFunctions<double>; }
}
