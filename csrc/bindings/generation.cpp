#include "cpu/step_view.h"

#include <pybind11/stl.h>

#include <array>

#include "bindings/registers.h"
#include "bindings/windows.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

using View = std::array<std::int64_t, 4>;  // the address, and the strides of image, row and head

StepTokens tokens(const View& view) {
    return {pointer<const float>(static_cast<Address>(view[0])), view[1], view[2], view[3]};
}

}  // namespace

void register_generation(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    m.attr("PANEL") = PANEL;
    m.def("packed_size", &packed_size, py::arg("outputs"), py::arg("inputs"));
    m.def(
        "pack_weight",
        [](Address weight, std::int64_t outputs, std::int64_t inputs, Address packed) {
            pack_weight(pointer<const float>(weight), outputs, inputs, pointer<float>(packed));
        },
        py::kw_only(), py::arg("weight"), py::arg("outputs"), py::arg("inputs"), py::arg("packed"),
        release());
    py::enum_<Activation>(m, "Activation")
        .value("gelu", Activation::gelu)
        .value("quick_gelu", Activation::quick_gelu);
    py::class_<LinearLayer>(m, "LinearLayer")
        .def(py::init([](Address weight, Address bias, std::int64_t inputs, std::int64_t outputs) {
                 return LinearLayer{pointer<const float>(weight), pointer<const float>(bias), inputs,
                                    outputs};
             }),
             py::kw_only(), py::arg("weight"), py::arg("bias"), py::arg("inputs"), py::arg("outputs"))
        .def(
            "__call__",
            [](const LinearLayer& layer, Address x, std::int64_t rows, Address y, int threads) {
                packed_linear({layer, pointer<const float>(x), rows, pointer<float>(y)}, threads);
            },
            py::kw_only(), py::arg("x"), py::arg("rows"), py::arg("y"), py::arg("threads"), release());
    m.def(
        "cache_blocks", [](const WindowNumbers& numbers) { return cache_blocks(window(numbers)); },
        py::arg("window"));
    m.attr("BLOCK_KEYS") = BLOCK_KEYS;
    py::class_<StepView>(m, "StepView")
        .def(py::init([](const WindowNumbers& numbers, const std::vector<std::int64_t>& places) {
                 return StepView(window(numbers), places);
             }),
             py::kw_only(), py::arg("window"), py::arg("places"));
    py::class_<StepCache>(m, "StepCache")
        .def(py::init([](Address keys, Address values, const std::array<std::int64_t, 4>& shape) {
                 return StepCache{
                     pointer<float>(keys), pointer<float>(values), shape[0], shape[1], shape[2], shape[3]};
             }),
             py::kw_only(), py::arg("keys"), py::arg("values"), py::arg("shape"))
        .def(
            "attend",
            [](const StepCache& cache, const View& q, const View& k, const View& v, const StepView& view,
               float scale, Address out, int threads) {
                attend_step({cache, view.step(), tokens(q), tokens(k), tokens(v), scale, pointer<float>(out)},
                            threads);
            },
            py::kw_only(), py::arg("q"), py::arg("k"), py::arg("v"), py::arg("view"), py::arg("scale"),
            py::arg("out"), py::arg("threads"), release());
    py::class_<RowNorm>(m, "RowNorm")
        .def(py::init([](Address weight, Address bias, float eps) {
                 return RowNorm{pointer<const float>(weight), pointer<const float>(bias), eps};
             }),
             py::kw_only(), py::arg("weight"), py::arg("bias"), py::arg("eps"));
    py::class_<StepBlock>(m, "StepBlock")
        .def(py::init([](const RowNorm& norm1, const LinearLayer& qkv, const LinearLayer& proj,
                         const RowNorm& norm2, const LinearLayer& fc1, const LinearLayer& fc2,
                         Activation activation, const StepCache& cache) {
                 return StepBlock{norm1, norm2, qkv, proj, fc1, fc2, activation, cache};
             }),
             py::kw_only(), py::arg("norm1"), py::arg("qkv"), py::arg("proj"), py::arg("norm2"),
             py::arg("fc1"), py::arg("fc2"), py::arg("activation"), py::arg("cache"))
        .def(
            "__call__",
            [](const StepBlock& block, Address x, const StepView& view, int threads) {
                step_block(block, view.step(), pointer<float>(x), threads);
            },
            py::kw_only(), py::arg("x"), py::arg("view"), py::arg("threads"), release());
}

}  // namespace imagen_fast
