#include "cpu/pixel_likelihood.h"

#include <pybind11/stl.h>

#include <array>

#include "bindings/registers.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

PredictedRows rows(Address hidden, std::array<std::int64_t, 3> shape, std::array<std::int64_t, 2> strides,
                   int dtype, Address weight, Address bias, std::int64_t outputs, Address target,
                   int target_type, Address keep, std::int64_t ignore_index, std::int64_t levels) {
    return {pointer<const void>(hidden),
            shape[0],
            shape[1],
            shape[2],
            strides[0],
            strides[1],
            pointer<const void>(weight),
            pointer<const void>(bias),
            outputs,
            static_cast<DType>(dtype),
            pointer<const void>(target),
            static_cast<Integer>(target_type),
            pointer<const bool>(keep),
            ignore_index,
            levels};
}

Likelihoods wanted(Address losses, Address log_z, Address d_losses, Address d_hidden, Address d_weight,
                   Address d_bias, float factor) {
    return {pointer<float>(losses),
            pointer<float>(log_z),
            pointer<const float>(d_losses),
            pointer<void>(d_hidden),
            pointer<float>(d_weight),
            pointer<float>(d_bias),
            factor};
}

}  // namespace

void register_pixel_likelihood(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    py::class_<PredictedRows>(m, "PredictedRows")
        .def(py::init(&rows), py::kw_only(), py::arg("hidden"), py::arg("shape"), py::arg("strides"),
             py::arg("dtype"), py::arg("weight"), py::arg("bias"), py::arg("outputs"), py::arg("target"),
             py::arg("target_type"), py::arg("keep"), py::arg("ignore_index"), py::arg("levels"));
    py::class_<Likelihoods>(m, "Likelihoods")
        .def(py::init(&wanted), py::kw_only(), py::arg("losses"), py::arg("log_z"), py::arg("d_losses"),
             py::arg("d_hidden"), py::arg("d_weight"), py::arg("d_bias"), py::arg("factor"));
    m.def(
        "cross_entropy",
        [](const PredictedRows& p, float label_smoothing, float z_loss, float sigma, const Likelihoods& w,
           int threads) {
            return cross_entropy({p, label_smoothing, z_loss, sigma, nullptr, nullptr}, w, threads);
        },
        py::arg("rows"), py::kw_only(), py::arg("label_smoothing"), py::arg("z_loss"), py::arg("sigma"),
        py::arg("wanted"), py::arg("threads"), release());
    m.def(
        "logistic_mixture",
        [](const PredictedRows& p, const Likelihoods& w, int threads) {
            return logistic_mixture({p}, w, threads);
        },
        py::arg("rows"), py::kw_only(), py::arg("wanted"), py::arg("threads"), release());
}

}  // namespace imagen_fast
