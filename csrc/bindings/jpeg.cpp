#include "cpu/jpeg.h"

#include <utility>

#include "bindings/registers.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

// The bytes of any contiguous buffer, held until the call is over.
struct Bytes {
    explicit Bytes(const py::buffer& buffer) : info(buffer.request()) {
        if (info.ndim != 1 || info.itemsize != 1 || info.strides[0] != 1)
            throw std::invalid_argument("a JPEG must come as contiguous bytes");
    }
    const std::uint8_t* data() const { return static_cast<const std::uint8_t*>(info.ptr); }
    std::size_t size() const { return static_cast<std::size_t>(info.size); }
    py::buffer_info info;
};

std::pair<std::int64_t, std::int64_t> size(const py::buffer& buffer) {
    const Bytes bytes(buffer);
    py::gil_scoped_release release;
    const JpegSize found = jpeg_size(bytes.data(), bytes.size());
    return {found.width, found.height};
}

void decode(const py::buffer& buffer, std::int64_t left, std::int64_t top, std::int64_t right,
            std::int64_t bottom, Address out) {
    const Bytes bytes(buffer);
    py::gil_scoped_release release;
    decode_jpeg(bytes.data(), bytes.size(), {left, top, right, bottom}, pointer<std::uint8_t>(out));
}

}  // namespace

void register_jpeg(py::module_& m) {
    py::register_exception<JpegError>(m, "JpegError", PyExc_ValueError);
    m.def("jpeg_size", size, py::arg("data"));
    m.def("decode_jpeg", decode, py::arg("data"), py::arg("left"), py::arg("top"), py::arg("right"),
          py::arg("bottom"), py::arg("out"));
}

}  // namespace imagen_fast
