// One function a subject, each adds its calls to the Python module. Tensors come as addresses: the caller
// (imagen_fast.native) has checked shapes, types and lifetimes. Every call releases the interpreter lock.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>

namespace imagen_fast {

using Address = std::uintptr_t;

template <class T>
T* pointer(Address address) {
    return reinterpret_cast<T*>(address);
}

void register_features(pybind11::module_& m);
void register_pixel_likelihood(pybind11::module_& m);
void register_pixel_mse(pybind11::module_& m);
void register_adamw(pybind11::module_& m);
void register_attention(pybind11::module_& m);
void register_causal_softmax(pybind11::module_& m);
void register_layer_norm(pybind11::module_& m);
void register_powers_of_two(pybind11::module_& m);
void register_gelu(pybind11::module_& m);
void register_generation(pybind11::module_& m);
void register_decode_batch(pybind11::module_& m);
void register_jpeg(pybind11::module_& m);
void register_view_decoder(pybind11::module_& m);

}  // namespace imagen_fast
