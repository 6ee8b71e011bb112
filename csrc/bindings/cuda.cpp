// The Python module _cuda. Its CUDA runtime is linked statically and the driver is looked for at the first
// call, so it imports on any machine.
#include <pybind11/pybind11.h>

#include "bindings/registers.h"
#include "cuda/devices.h"

namespace py = pybind11;

PYBIND11_MODULE(_cuda, m) {
    using release = py::call_guard<py::gil_scoped_release>;
    m.doc() = "The CUDA kernels of imagen_fast; use them through imagen_fast.native.";
    m.attr("compiled_architectures") = IMAGEN_FAST_CUDA_ARCHITECTURES;
    m.def("device_count", &imagen_fast::device_count, release());
    imagen_fast::register_view_decoder(m);
}
