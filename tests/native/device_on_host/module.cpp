#include <pybind11/pybind11.h>

#include "bindings/registers.h"
#include "kernels.h"
#include "runtime.h"

namespace py = pybind11;

PYBIND11_MODULE(device_on_host, m) {
    imagen_fast::register_view_decoder(m);
    m.def("stream", [] {
        cudaStream_t stream;
        cudaStreamCreateWithFlags(&stream, 0);
        return reinterpret_cast<imagen_fast::Address>(stream);
    });
    m.def("wait", [](imagen_fast::Address stream) {
        cudaStreamSynchronize(imagen_fast::pointer<CUstream_st>(stream));
    });
    m.def("set_backwards", [](bool on) { device_on_host::backwards = on; });
    m.def("counts", [] {
        const device_on_host::Counts c = device_on_host::counts();
        return py::make_tuple(c.allocations, c.memories, c.streams, c.events);
    });
}
