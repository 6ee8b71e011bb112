// The Python module _cpu.
#include "bindings/registers.h"
#include "build_info.h"

PYBIND11_MODULE(_cpu, m) {
    m.doc() = "The CPU kernels of imagen_fast; use them through imagen_fast.native.";
    imagen_fast::register_features(m);
    imagen_fast::register_pixel_likelihood(m);
    imagen_fast::register_pixel_mse(m);
    imagen_fast::register_adamw(m);
    imagen_fast::register_attention(m);
    imagen_fast::register_causal_softmax(m);
    imagen_fast::register_layer_norm(m);
    imagen_fast::register_powers_of_two(m);
    imagen_fast::register_gelu(m);
    imagen_fast::register_generation(m);
#if defined(IMAGEN_FAST_JPEG)
    imagen_fast::register_jpeg(m);
#endif
    imagen_fast::register_decode_batch(m);
}
