#include "cuda/view_decoder.h"

#include <pybind11/stl.h>

#include <array>

#include "bindings/pictures.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

Failures decode(ViewDecoder& decoder, const std::vector<py::buffer>& images, const Integers& views,
                const Integers& places, int filter, Address out, int type, std::array<std::int64_t, 3> shape,
                std::int64_t patch, std::array<float, 3> scale, std::array<float, 3> shift, int threads,
                Address stream) {
    const Held held(images);
    const std::vector<View> wanted = views_of(views, places, images.size());
    const ImageOutput output = output_of(out, type, shape, patch, scale, shift);
    py::gil_scoped_release release;
    return decoder.decode(held.pictures, wanted, static_cast<Filter>(filter), output, places.data(), threads,
                          stream);
}

}  // namespace

void register_view_decoder(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    py::class_<ViewDecoder>(m, "ViewDecoder")
        .def(py::init<const std::string&>(), py::arg("nvjpeg"), release())
        .def_property_readonly("has_engine", &ViewDecoder::has_engine)
        .def("decode", decode, py::kw_only(), py::arg("images"), py::arg("views"), py::arg("places"),
             py::arg("filter"), py::arg("out"), py::arg("type"), py::arg("shape"), py::arg("patch"),
             py::arg("scale"), py::arg("shift"), py::arg("threads"), py::arg("stream"));
}

}  // namespace imagen_fast
