#include "bind_spec.hpp"

#include <pybind11/stl.h>

#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace rnnkern {
namespace {

namespace py = pybind11;

using ActivationTuple = std::tuple<std::string, double, double>;

ActivationKind activation_kind(const std::string& name) {
  static const std::pair<const char*, ActivationKind> kinds[] = {
      {"Affine", ActivationKind::affine},
      {"Elu", ActivationKind::elu},
      {"HardSigmoid", ActivationKind::hard_sigmoid},
      {"Identity", ActivationKind::identity},
      {"LeakyRelu", ActivationKind::leaky_relu},
      {"Relu", ActivationKind::relu},
      {"ScaledTanh", ActivationKind::scaled_tanh},
      {"Sigmoid", ActivationKind::sigmoid},
      {"Softplus", ActivationKind::softplus},
      {"Softsign", ActivationKind::softsign},
      {"Tanh", ActivationKind::tanh},
      {"ThresholdedRelu", ActivationKind::thresholded_relu},
  };
  for (const auto& [known, kind] : kinds)
    if (name == known) return kind;
  throw py::value_error("activations: unknown function '" + name + "'");
}

CellFamily family_of(const std::string& name) {
  if (name == "rnn") return CellFamily::rnn;
  if (name == "lstm") return CellFamily::lstm;
  if (name == "gru_reset_after") return CellFamily::gru_reset_after;
  if (name == "gru_reset_before") return CellFamily::gru_reset_before;
  if (name == "jordan") return CellFamily::jordan;
  throw py::value_error("family: unknown cell '" + name + "'");
}

Coupling coupling_of(const py::object& derived) {
  if (derived.is_none()) return Coupling::none;
  const auto gate = derived.cast<std::string>();
  if (gate == "i") return Coupling::input;
  if (gate == "f") return Coupling::forget;
  throw py::value_error("coupled: unknown gate '" + gate + "'");
}

}  // namespace

Spec spec_of(const py::object& from) {
  Spec spec{};
  spec.family = family_of(from.attr("family").cast<std::string>());
  spec.input_size = from.attr("input_size").cast<int64_t>();
  spec.hidden_size = from.attr("hidden_size").cast<int64_t>();
  spec.proj_size = from.attr("proj_size").cast<int64_t>();
  spec.num_layers = from.attr("num_layers").cast<int64_t>();
  spec.num_directions = from.attr("num_directions").cast<int64_t>();
  spec.softmax = from.attr("softmax").cast<bool>();
  spec.peephole = from.attr("peephole").cast<bool>();
  spec.coupling = coupling_of(from.attr("coupled"));
  const py::object clip = from.attr("clip");
  spec.clip = clip.is_none() ? std::numeric_limits<double>::infinity() : clip.cast<double>();
  const auto activations = from.attr("activations").cast<std::vector<std::vector<ActivationTuple>>>();
  for (std::size_t d = 0; d < activations.size() && d < 2; ++d)
    for (std::size_t i = 0; i < activations[d].size() && i < 3; ++i) {
      const auto& [name, alpha, beta] = activations[d][i];
      spec.activations[d][i] = {activation_kind(name), alpha, beta};
    }
  if (from.attr("num_gates").cast<int64_t>() != spec.gates() ||
      from.attr("has_cell_state").cast<bool>() != spec.has_cell_state())
    throw py::value_error("family: the kernels know another cell of the name '" +
                          from.attr("family").cast<std::string>() + "' than the Python files");
  return spec;
}

}  // namespace rnnkern
