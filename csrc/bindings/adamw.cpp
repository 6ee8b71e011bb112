#include "cpu/adamw.h"

#include <pybind11/stl.h>

#include <tuple>

#include "bindings/registers.h"

namespace py = pybind11;

namespace imagen_fast {

namespace {

using GradientTuple = std::tuple<Address, int, std::int64_t>;  // address, type, size
// gradient, master, exp_avg, exp_avg_sq, bf16 weight or 0, lr, weight_decay
using ParameterTuple = std::tuple<GradientTuple, Address, Address, Address, Address, double, double>;

Gradient gradient(const GradientTuple& t) {
    return {pointer<const void>(std::get<0>(t)), static_cast<DType>(std::get<1>(t)), std::get<2>(t)};
}

void step(const std::vector<ParameterTuple>& tuples, const AdamwStep& constants, int threads) {
    std::vector<Parameter> parameters;
    parameters.reserve(tuples.size());
    for (const auto& t : tuples)
        parameters.push_back({gradient(std::get<0>(t)), pointer<float>(std::get<1>(t)),
                              pointer<float>(std::get<2>(t)), pointer<float>(std::get<3>(t)),
                              pointer<BFloat16>(std::get<4>(t)), std::get<5>(t), std::get<6>(t)});
    adamw_step(parameters, constants, threads);
}

double norm(const std::vector<GradientTuple>& tuples, int threads) {
    std::vector<Gradient> gradients;
    gradients.reserve(tuples.size());
    for (const auto& t : tuples) gradients.push_back(gradient(t));
    return gradient_norm(gradients, threads);
}

}  // namespace

void register_adamw(py::module_& m) {
    using release = py::call_guard<py::gil_scoped_release>;
    py::class_<AdamwStep>(m, "AdamwStep")
        .def(py::init([](double beta1, double beta2, double eps, double bias_correction1,
                         double bias_correction2_sqrt, double gradient_scale) {
                 return AdamwStep{beta1, beta2, eps, bias_correction1, bias_correction2_sqrt, gradient_scale};
             }),
             py::kw_only(), py::arg("beta1"), py::arg("beta2"), py::arg("eps"), py::arg("bias_correction1"),
             py::arg("bias_correction2_sqrt"), py::arg("gradient_scale"));
    m.def("adamw_step", step, py::arg("parameters"), py::arg("step"), py::arg("threads"), release());
    m.def("gradient_norm", norm, py::arg("gradients"), py::arg("threads"), release());
}

}  // namespace imagen_fast
