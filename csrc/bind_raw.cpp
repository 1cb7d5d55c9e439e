// Networks on bare addresses, for frameworks whose tensors hold the weights, inputs and results. Whoever calls has
// checked everything; nothing is checked here.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "bind.hpp"
#include "bind_spec.hpp"
#include "dispatch.hpp"
#include "driver.hpp"

namespace rnnkern {
namespace {

namespace py = pybind11;

using Address = std::uintptr_t;  // of the first element of a tensor; 0: there is none
using Addresses = std::vector<Address>;

// The arguments that forward and backward share.
struct RawCall {
  int64_t steps, batch;
  Address lengths;
  Address x;
  int64_t x_stride_t, x_stride_b;
  Address h0, c0, y;
  Addresses masks;
};

class RawPanels {
 public:
  virtual ~RawPanels() = default;
};

template <class T>
struct PackedPanels : RawPanels {
  std::shared_ptr<const Packed<T>> packed;
};

class RawNetworkBase {
 public:
  virtual ~RawNetworkBase() = default;
  virtual std::shared_ptr<RawPanels> pack(int threads, const Addresses& weights) const = 0;
  virtual void run(int threads, py::handle weights, const RawCall& call, Address hn, Address cn) const = 0;
  virtual void forward(int threads, const Addresses& weights, const RawCall& call, Address hn, Address cn,
                       Address tape) const = 0;
  virtual void backward(int threads, const Addresses& weights, const RawCall& call, Address tape, Address dy,
                        int64_t dy_stride_t, int64_t dy_stride_b, Address dhn, Address dcn, Address dx,
                        int64_t dx_stride_t, int64_t dx_stride_b, Address dh0, Address dc0,
                        const Addresses& dweights) const = 0;
  virtual std::tuple<int64_t, int64_t, int64_t> tape_size(bool masked) const = 0;
};

template <class T>
class RawNetwork : public RawNetworkBase {
 public:
  RawNetwork(const Spec& spec, bool bias, const Isa& isa) : spec_(spec), bias_(bias), table_(*isa.table) {}

  std::shared_ptr<RawPanels> pack(int threads, const Addresses& addresses) const override {
    auto panels = std::make_shared<PackedPanels<T>>();
    const auto weights = weights_at<const T>(addresses);
    const py::gil_scoped_release release;
    panels->packed = rnnkern::pack<T>(spec_, table_, weights.data(), threads);
    return panels;
  }

  void run(int threads, py::handle given, const RawCall& raw, Address hn, Address cn) const override {
    std::vector<Weights<const T>> weights;
    const Packed<T>* packed = nullptr;
    if (py::isinstance<RawPanels>(given))
      packed = static_cast<const PackedPanels<T>&>(given.cast<const RawPanels&>()).packed.get();
    else
      weights = weights_at<const T>(given.cast<Addresses>());
    const Call call(*this, raw, hn, cn);
    const py::gil_scoped_release release;
    rnnkern::run<T>(spec_, table_, packed ? nullptr : weights.data(), packed, call.forward, threads);
  }

  void forward(int threads, const Addresses& addresses, const RawCall& raw, Address hn, Address cn,
               Address tape) const override {
    const auto weights = weights_at<const T>(addresses);
    const Call call(*this, raw, hn, cn);
    const py::gil_scoped_release release;
    rnnkern::forward<T>(spec_, table_, weights.data(), call.forward, at<char>(tape), threads);
  }

  void backward(int threads, const Addresses& addresses, const RawCall& raw, Address tape, Address dy,
                int64_t dy_stride_t, int64_t dy_stride_b, Address dhn, Address dcn, Address dx, int64_t dx_stride_t,
                int64_t dx_stride_b, Address dh0, Address dc0, const Addresses& gradients) const override {
    const auto weights = weights_at<const T>(addresses);
    const auto dweights = weights_at<T>(gradients);
    const Call forward(*this, raw, 0, 0);
    BackwardCall<T> call{};
    call.forward = forward.forward;
    call.dy = {at<const T>(dy), dy_stride_t, dy_stride_b};
    call.dhn = at<const T>(dhn);
    call.dcn = at<const T>(dcn);
    call.dx = {at<T>(dx), dx_stride_t, dx_stride_b};
    call.dh0 = at<T>(dh0);
    call.dc0 = at<T>(dc0);
    call.dweights = gradients.empty() ? nullptr : dweights.data();
    const py::gil_scoped_release release;
    rnnkern::backward<T>(spec_, table_, weights.data(), at<char>(tape), call, threads);
  }

  std::tuple<int64_t, int64_t, int64_t> tape_size(bool masked) const override {
    const TapeSize size = rnnkern::tape_size<T>(spec_, table_, masked);
    return {size.per_step, size.per_padded_step, size.constant};
  }

 private:
  template <class U>
  static U* at(Address address) {
    return reinterpret_cast<U*>(address);
  }

  // In the order of rnnkern.spec.Spec.weight_shapes; none at all: every pointer is nullptr.
  template <class U>
  std::vector<Weights<U>> weights_at(const Addresses& addresses) const {
    std::vector<Weights<U>> weights(spec_.num_layers * spec_.num_directions);
    auto next = addresses.begin();
    const auto take = [&](bool present) { return present && next != addresses.end() ? at<U>(*next++) : nullptr; };
    for (Weights<U>& part : weights) {
      part.ih = take(true);
      part.hh = take(true);
      part.bias_ih = take(bias_);
      part.bias_hh = take(bias_);
      part.hr = take(spec_.proj_size > 0);
      part.peephole = take(spec_.peephole);
    }
    return weights;
  }

  struct Call {
    std::vector<const T*> masks;
    ForwardCall<T> forward{};

    Call(const RawNetwork& network, const RawCall& raw, Address hn, Address cn) {
      const Spec& spec = network.spec_;
      const int64_t width = spec.num_directions * spec.output_size();
      for (const Address mask : raw.masks) masks.push_back(at<const T>(mask));
      forward.steps = raw.steps;
      forward.batch = raw.batch;
      forward.lengths = at<const int64_t>(raw.lengths);
      forward.x = {at<const T>(raw.x), raw.x_stride_t, raw.x_stride_b};
      forward.h0 = at<const T>(raw.h0);
      forward.c0 = at<const T>(raw.c0);
      forward.masks = masks.empty() ? nullptr : masks.data();
      forward.return_sequence = true;
      forward.y = {at<T>(raw.y), raw.batch * width, width};
      forward.hn = at<T>(hn);
      forward.cn = at<T>(cn);
    }
  };

  const Spec spec_;
  const bool bias_;
  const KernelTable& table_;
};

std::shared_ptr<RawNetworkBase> make_raw_network(const py::object& spec, const std::optional<std::string>& isa) {
  const Isa& chosen = isa ? find_isa(*isa) : default_isa();
  const bool bias = spec.attr("bias").cast<bool>();
  if (py::dtype::from_args(spec.attr("dtype")).itemsize() == 4)
    return std::make_shared<RawNetwork<float>>(spec_of(spec), bias, chosen);
  return std::make_shared<RawNetwork<double>>(spec_of(spec), bias, chosen);
}

// Between rows without padding, step after step the first batch_sizes[t] sequences, and (T, B) padded ones.
template <bool to_padded>
void copy_rows(Address packed, Address padded, Address batch_sizes, int64_t steps, int64_t batch, int64_t row_bytes) {
  const py::gil_scoped_release release;
  const auto* sizes = reinterpret_cast<const int64_t*>(batch_sizes);
  auto* dense = reinterpret_cast<char*>(packed);
  auto* rows = reinterpret_cast<char*>(padded);
  for (int64_t t = 0; t < steps; ++t) {
    const int64_t bytes = sizes[t] * row_bytes;
    std::memcpy(to_padded ? rows : dense, to_padded ? dense : rows, bytes);
    dense += bytes;
    rows += batch * row_bytes;
  }
}

}  // namespace

void bind_raw(py::module_& module) {
  using namespace py::literals;
  py::class_<RawPanels, std::shared_ptr<RawPanels>>(module, "RawPanels");
  py::class_<RawCall>(module, "RawCall")
      .def(py::init([](int64_t steps, int64_t batch, Address lengths, Address x, int64_t x_stride_t, int64_t x_stride_b,
                       Address h0, Address c0, Address y, Addresses masks) {
             return RawCall{steps, batch, lengths, x, x_stride_t, x_stride_b, h0, c0, y, std::move(masks)};
           }),
           "steps"_a, "batch"_a, "lengths"_a, "x"_a, "x_stride_t"_a, "x_stride_b"_a, "h0"_a, "c0"_a, "y"_a, "masks"_a);
  py::class_<RawNetworkBase, std::shared_ptr<RawNetworkBase>>(module, "RawNetwork")
      .def(py::init(&make_raw_network), "spec"_a, "isa"_a = py::none())
      .def("pack", &RawNetworkBase::pack, "threads"_a, "weights"_a)
      .def("run", &RawNetworkBase::run, "threads"_a, "weights"_a, "call"_a, "hn"_a, "cn"_a)
      .def("forward", &RawNetworkBase::forward, "threads"_a, "weights"_a, "call"_a, "hn"_a, "cn"_a, "tape"_a)
      .def("backward", &RawNetworkBase::backward, "threads"_a, "weights"_a, "call"_a, "tape"_a, "dy"_a, "dy_stride_t"_a,
           "dy_stride_b"_a, "dhn"_a, "dcn"_a, "dx"_a, "dx_stride_t"_a, "dx_stride_b"_a, "dh0"_a, "dc0"_a, "dweights"_a)
      .def("tape_size", &RawNetworkBase::tape_size, "masked"_a);
  module.def("unpack_rows", &copy_rows<true>, "packed"_a, "padded"_a, "batch_sizes"_a, "steps"_a, "batch"_a,
             "row_bytes"_a);
  module.def("pack_rows", &copy_rows<false>, "packed"_a, "padded"_a, "batch_sizes"_a, "steps"_a, "batch"_a,
             "row_bytes"_a);
}

}  // namespace rnnkern
