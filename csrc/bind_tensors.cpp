// Networks on a framework's own tensors, which hold the weights and inputs; results are made as new ones of the same
// kind. A tensor that is not what the network expects is refused, not an error: the caller then leaves the call to the
// framework.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bind.hpp"
#include "bind_gil.hpp"
#include "bind_spec.hpp"
#include "dispatch.hpp"
#include "dlpack.hpp"
#include "driver.hpp"

namespace rnnkern {
namespace {

namespace py = pybind11;

// Where a tensor's elements are.
struct TensorView {
  static constexpr int kMostAxes = 3;
  char* data;
  int ndim;
  int64_t shape[kMostAxes], strides[kMostAxes];  // in elements
  int itemsize;

  bool has_shape(std::initializer_list<int64_t> expected) const {
    return ndim == static_cast<int>(expected.size()) && std::equal(expected.begin(), expected.end(), shape);
  }
  bool contiguous() const {
    int64_t expected = 1;
    for (int axis = ndim - 1; axis >= 0; --axis) {
      if (shape[axis] != 1 && strides[axis] != expected) return false;
      expected *= shape[axis];
    }
    return true;
  }
  // Whether neighbours along the last axis are neighbours in memory.
  bool has_rows() const { return ndim > 0 && (strides[ndim - 1] == 1 || shape[ndim - 1] == 1); }
};

// Reads the tensors of some types: floating-point numbers on the CPU with at most three axes.
class TensorReader {
 public:
  // api: the capsule of DLPack's exchange interface, or None: by the methods data_ptr, stride, element_size and so on.
  TensorReader(const py::object& api, const py::tuple& types) : is_neg_(py::object(types[0]).attr("is_neg")) {
    if (!api.is_none()) {
      api_ = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(api.ptr(), dlpack::kExchangeApiCapsule));
      if (!api_) throw py::error_already_set();
      if (api_->version.major != dlpack::kMajorVersion || !api_->from_object) api_ = nullptr;
    }
    for (const py::handle type : types) types_.push_back(py::reinterpret_borrow<py::object>(type));
  }

  // False: not such a tensor.
  bool read(py::handle object, TensorView& view) const {
    const auto* type = reinterpret_cast<const PyObject*>(Py_TYPE(object.ptr()));
    if (std::none_of(types_.begin(), types_.end(), [&](const py::object& known) { return known.ptr() == type; }))
      return false;
    if (!(api_ ? read_by_api(object, view) : read_by_methods(object, view))) return false;
    const bool empty = std::find(view.shape, view.shape + view.ndim, 0) != view.shape + view.ndim;
    return view.data || empty;  // some kinds have no memory for their elements
  }

  // Whether the elements are those in memory and not their negatives: PyTorch has tensors whose sign is a flag.
  bool is_plain(py::handle object) const {
    const auto negative = py::reinterpret_steal<py::object>(PyObject_CallOneArg(is_neg_.ptr(), object.ptr()));
    if (!negative) throw py::error_already_set();
    return negative.ptr() == Py_False;
  }

 private:
  bool read_by_api(py::handle object, TensorView& view) const {
    dlpack::Tensor tensor{};
    if (api_->from_object(object.ptr(), &tensor) != 0) {
      PyErr_Clear();  // of a kind that has no elements in memory
      return false;
    }
    if (tensor.device.type != dlpack::kCpu || tensor.dtype.code != dlpack::kFloat || tensor.dtype.lanes != 1)
      return false;
    if (tensor.ndim > TensorView::kMostAxes) return false;
    view.data = static_cast<char*>(tensor.data) + tensor.byte_offset;
    view.ndim = tensor.ndim;
    view.itemsize = tensor.dtype.bits / 8;
    int64_t stride = 1;
    for (int axis = tensor.ndim - 1; axis >= 0; --axis) {
      view.shape[axis] = tensor.shape[axis];
      view.strides[axis] = tensor.strides ? tensor.strides[axis] : stride;
      stride *= tensor.shape[axis];
    }
    return true;
  }

  bool read_by_methods(py::handle object, TensorView& view) const {
    const auto shape = object.attr("shape").cast<std::vector<int64_t>>();
    if (shape.size() > TensorView::kMostAxes) return false;
    if (object.attr("device").attr("type").cast<std::string>() != "cpu") return false;
    if (!object.attr("is_floating_point")().cast<bool>()) return false;
    try {
      const auto strides = object.attr("stride")().cast<std::vector<int64_t>>();
      view.data = reinterpret_cast<char*>(object.attr("data_ptr")().cast<std::uintptr_t>());
      std::copy(strides.begin(), strides.end(), view.strides);
    } catch (py::error_already_set&) {
      return false;  // of a kind that has no elements in memory
    }
    view.ndim = static_cast<int>(shape.size());
    view.itemsize = object.attr("element_size")().cast<int>();
    std::copy(shape.begin(), shape.end(), view.shape);
    return true;
  }

  const dlpack::ExchangeApi* api_ = nullptr;
  std::vector<py::object> types_;
  py::object is_neg_;  // the method
};

template <class... Objects>
py::object call_method(PyObject* name, const Objects&... self_and_arguments) {
  PyObject* const given[] = {self_and_arguments.ptr()...};
  auto result =
      py::reinterpret_steal<py::object>(PyObject_VectorcallMethod(name, given, sizeof...(self_and_arguments), nullptr));
  if (!result) throw py::error_already_set();
  return result;
}

// New tensors of the framework, not initialised, of the dtype of another one: C-contiguous, ...
template <class... Sizes>
py::object new_tensor(py::handle like, Sizes... shape) {
  static PyObject* const name = PyUnicode_InternFromString("new_empty");  // kept for as long as the process lives
  return call_method(name, like, py::int_(shape)...);
}
// ... or (n0, n1, n2) with the second axis outermost in memory.
py::object new_swapped_tensor(py::handle like, int64_t n0, int64_t n1, int64_t n2) {
  static PyObject* const name = PyUnicode_InternFromString("new_empty_strided");
  return call_method(name, like, py::make_tuple(n0, n1, n2), py::make_tuple(n2, n0 * n2, 1));
}

// How x and y have the steps, the sequences and their values.
enum class Layout : int {
  time_major,   // (T, B, N)
  batch_first,  // (B, T, N)
  unbatched,    // (T, N)
  one_step,     // (B, N)
};

class TensorPanels {
 public:
  virtual ~TensorPanels() = default;
};

template <class T>
struct PackedPanels : TensorPanels {
  std::shared_ptr<const Packed<T>> packed;
};

// What goes in; None: there is not. weights: a list or tuple, or TensorPanels; lengths: an array (B) of int64; masks: a
// list or tuple.
struct TensorCall {
  py::handle weights;
  Layout layout;
  py::handle x, h0, c0, lengths, masks;
};

// The results of the forward pass (y: where the tape has it not), the gradients by them, and whether those by x, h0, c0
// and each of the weights are wanted.
struct TensorGradients {
  py::handle y, tape, dy, dhn, dcn;
  const std::vector<bool>& wanted;
  bool dense;
};

class TensorNetworkBase {
 public:
  virtual ~TensorNetworkBase() = default;
  virtual std::shared_ptr<TensorPanels> pack(int threads, py::handle weights) const = 0;
  virtual py::object run(int threads, const TensorCall& call, bool keep) const = 0;
  virtual py::object backward(int threads, const TensorCall& call, const TensorGradients& gradients) const = 0;
  virtual std::pair<int64_t, int64_t> tape_size(bool masked, bool outputs) const = 0;
};

template <class T>
class TensorNetwork : public TensorNetworkBase {
 public:
  TensorNetwork(const Spec& spec, bool bias, const Isa& isa, const TensorReader& reader)
      : spec_(spec), bias_(bias), table_(*isa.table), reader_(reader) {}

  std::shared_ptr<TensorPanels> pack(int threads, py::handle tensors) const override {
    WeightTensors<const T> weights;
    if (!read_weights(tensors, false, weights) || !in_place(weights)) return nullptr;
    auto panels = std::make_shared<PackedPanels<T>>();
    without_gil([&] { panels->packed = rnnkern::pack<T>(spec_, table_, weights.parts.data(), threads); });
    return panels;
  }

  py::object run(int threads, const TensorCall& tensors, bool keep) const override {
    WeightTensors<const T> weights;
    const Packed<T>* packed = nullptr;
    if (!keep && py::isinstance<TensorPanels>(tensors.weights)) {
      const auto* panels = dynamic_cast<const PackedPanels<T>*>(&tensors.weights.cast<const TensorPanels&>());
      if (!panels) return py::none();
      packed = panels->packed.get();
    } else if (!read_weights(tensors.weights, false, weights)) {
      return py::none();
    }
    Call call;
    if (!read_call(tensors, call)) return py::none();
    ForwardCall<T>& forward = call.forward;
    const py::handle x = tensors.x;
    py::object y = py::none(), hn = py::none(), cn = py::none(), tape = py::none();
    const bool has_hn = call.layout != Layout::one_step;  // else it is y
    TensorView kept;
    if (!make_sequence(x, call, width(), call.layout == Layout::batch_first, y, forward.y) ||
        (has_hn && !make_state(x, call, spec_.output_size(), hn, forward.hn)) ||
        (spec_.has_cell_state() && !make_state(x, call, spec_.hidden_size, cn, forward.cn)))
      return py::none();
    if (keep) {
      tape = new_tensor(x, tape_numel(call));
      if (!read_tape(tape, call, kept)) return py::none();
    }
    if (!in_place(tensors, call) || (!packed && !in_place(weights)) || !in_place(y, forward.y.data) ||
        !in_place(hn, forward.hn) || !in_place(cn, forward.cn) || !in_place(tape, kept.data))
      return py::none();
    without_gil([&] {
      if (keep)
        rnnkern::forward<T>(spec_, table_, weights.parts.data(), forward, kept.data, threads);
      else
        rnnkern::run<T>(spec_, table_, packed ? nullptr : weights.parts.data(), packed, forward, threads);
    });
    return py::make_tuple(std::move(y), std::move(hn), std::move(cn), std::move(tape));
  }

  py::object backward(int threads, const TensorCall& tensors, const TensorGradients& gradients) const override {
    WeightTensors<const T> weights;
    Call call;
    TensorView tape;
    BackwardCall<T> back{};
    if (!read_weights(tensors.weights, false, weights) || !read_call(tensors, call) ||
        gradients.y.is_none() != tape_has_outputs(call.forward) ||
        !read_sequence(gradients.y, call, width(), call.forward.y) || !read_tape(gradients.tape, call, tape) ||
        !read_sequence(gradients.dy, call, width(), back.dy) ||
        !read_state(gradients.dhn, call, spec_.output_size(), back.dhn) ||
        !read_state(gradients.dcn, call, spec_.hidden_size, back.dcn))
      return py::none();
    back.forward = call.forward;

    const std::vector<bool>& wanted = gradients.wanted;
    if (wanted.size() != kFirstWeight + weights.held.size()) return py::none();
    const py::handle x = tensors.x;
    const bool swapped = !gradients.dense && call.x.ndim == 3 && call.x.strides[0] < call.x.strides[1];
    py::object dx = py::none(), dh0 = py::none(), dc0 = py::none();
    WeightTensors<T> dweights;
    if ((wanted[0] && !make_sequence(x, call, spec_.input_size, swapped, dx, back.dx)) ||
        (wanted[1] && !make_state(x, call, spec_.output_size(), dh0, back.dh0)) ||
        (wanted[2] && !make_state(x, call, spec_.hidden_size, dc0, back.dc0)) ||
        !make_gradients(weights, wanted, dweights))
      return py::none();
    const bool wants_weights = std::find(wanted.begin() + kFirstWeight, wanted.end(), true) != wanted.end();
    back.dweights = wants_weights ? dweights.parts.data() : nullptr;
    if (!in_place(tensors, call) || !in_place(weights) || !in_place(dweights) ||
        !in_place(gradients.y, call.forward.y.data) || !in_place(gradients.tape, tape.data) ||
        !in_place(gradients.dy, back.dy.data) || !in_place(gradients.dhn, back.dhn) ||
        !in_place(gradients.dcn, back.dcn) || !in_place(dx, back.dx.data) || !in_place(dh0, back.dh0) ||
        !in_place(dc0, back.dc0))
      return py::none();
    without_gil([&] { rnnkern::backward<T>(spec_, table_, weights.parts.data(), tape.data, back, threads); });
    py::list found;
    for (const py::object& gradient : {dx, dh0, dc0}) found.append(gradient);
    for (std::size_t i = kFirstWeight; i < wanted.size(); ++i)
      found.append(wanted[i] ? py::object(dweights.held[i - kFirstWeight]) : py::none());
    return found;
  }

  std::pair<int64_t, int64_t> tape_size(bool masked, bool outputs) const override {
    const TapeSize size = rnnkern::tape_size<T>(spec_, table_, masked, outputs);
    return {size.per_step, size.per_padded_step};
  }

 private:
  static constexpr std::size_t kFirstWeight = 3;  // of the tensors that there may be gradients by, after x, h0 and c0

  // The list may change while the GIL is released: its tensors are held.
  template <class U>
  struct WeightTensors {
    py::tuple held;
    std::vector<Weights<U>> parts;
  };
  struct Call {
    Layout layout;
    TensorView x;
    std::vector<const T*> masks;
    py::tuple held_masks;  // the list may change while the GIL is released
    ForwardCall<T> forward{};
  };

  static bool is_list_or_tuple(py::handle object) { return PyList_Check(object.ptr()) || PyTuple_Check(object.ptr()); }

  int64_t width() const { return spec_.num_directions * spec_.output_size(); }

  bool read(py::handle tensor, TensorView& view) const {
    return reader_.read(tensor, view) && view.itemsize == sizeof(T);
  }
  // To be read from, or to be written to.
  template <class U>
  bool read_as(py::handle tensor, TensorView& view) const {
    return read(tensor, view) && (!std::is_const_v<U> || reader_.is_plain(tensor));
  }

  // In the order of rnnkern.spec.Spec.weight_shapes. `optional`: the list may have None for all weights of a layer and
  // direction.
  template <class U>
  bool read_weights(py::handle tensors, bool optional, WeightTensors<U>& given) const {
    if (!is_list_or_tuple(tensors)) return false;
    const py::tuple list = given.held = py::tuple(py::reinterpret_borrow<py::object>(tensors));
    std::vector<Weights<U>>& weights = given.parts;
    weights.resize(spec_.num_layers * spec_.num_directions);
    std::size_t next = 0;
    bool fine = true;
    const auto take = [&](U*& pointer, bool present, std::initializer_list<int64_t> shape) {
      pointer = nullptr;
      if (!present || !fine) return;
      TensorView view;
      fine = next < list.size();
      if (!fine) return;
      const py::handle tensor = list[next++];
      if (optional && tensor.is_none()) return;
      fine = read_as<U>(tensor, view) && view.has_shape(shape) && view.contiguous();
      pointer = reinterpret_cast<U*>(view.data);
    };
    const int64_t rows = spec_.gates() * spec_.hidden_size;
    for (std::size_t part = 0; part < weights.size(); ++part) {
      Weights<U>& w = weights[part];
      take(w.ih, true, {rows, spec_.layer_input_size(static_cast<int64_t>(part) / spec_.num_directions)});
      take(w.hh, true, {rows, spec_.output_size()});
      take(w.bias_ih, bias_, {rows});
      take(w.bias_hh, bias_, {rows});
      take(w.hr, spec_.proj_size > 0, {spec_.proj_size, spec_.hidden_size});
      take(w.peephole, spec_.peephole, {3, spec_.hidden_size});
    }
    return fine && next == list.size();
  }

  bool read_call(const TensorCall& tensors, Call& call) const {
    ForwardCall<T>& forward = call.forward;
    const TensorView& x = call.x;
    if (!read_as<const T>(tensors.x, call.x)) return false;
    call.layout = tensors.layout;
    const bool batched = call.layout == Layout::time_major || call.layout == Layout::batch_first;
    if (x.ndim != (batched ? 3 : 2)) return false;
    forward.steps = call.layout == Layout::one_step ? 1 : x.shape[call.layout == Layout::batch_first ? 1 : 0];
    forward.batch = call.layout == Layout::unbatched ? 1 : x.shape[call.layout == Layout::time_major ? 1 : 0];
    forward.return_sequence = true;
    return forward.steps > 0 && forward.batch > 0 && place_sequence(x, call, spec_.input_size, forward.x) &&
           read_state(tensors.h0, call, spec_.output_size(), forward.h0) &&
           read_state(tensors.c0, call, spec_.hidden_size, forward.c0) && read_lengths(tensors.lengths, forward) &&
           read_masks(tensors.masks, call);
  }

  static bool read_lengths(py::handle given, ForwardCall<T>& forward) {
    if (given.is_none()) return true;
    if (!py::isinstance<py::array_t<int64_t, py::array::c_style>>(given)) return false;
    const auto lengths = py::reinterpret_borrow<py::array_t<int64_t>>(given);
    if (lengths.ndim() != 1 || lengths.size() != forward.batch) return false;
    forward.lengths = lengths.data();
    return std::all_of(forward.lengths, forward.lengths + forward.batch,
                       [&](int64_t length) { return 1 <= length && length <= forward.steps; });
  }

  bool read_masks(py::handle given, Call& call) const {
    if (!is_list_or_tuple(given)) return false;
    const py::tuple masks = call.held_masks = py::tuple(py::reinterpret_borrow<py::object>(given));
    if (masks.empty()) return true;
    for (const py::handle tensor : masks) {
      TensorView mask;
      if (!read(tensor, mask) || !mask.contiguous()) return false;
      if (!mask.has_shape({call.forward.steps, call.forward.batch, width()})) return false;
      call.masks.push_back(reinterpret_cast<const T*>(mask.data));
    }
    call.forward.masks = call.masks.data();
    return static_cast<int64_t>(call.masks.size()) == spec_.num_layers - 1;
  }

  template <class U>
  bool read_sequence(py::handle tensor, const Call& call, int64_t values, Sequence<U>& sequence) const {
    sequence = {nullptr, 0, 0};
    if (tensor.is_none()) return true;
    TensorView view;
    return read_as<U>(tensor, view) && place_sequence(view, call, values, sequence);
  }

  template <class U>
  static bool place_sequence(const TensorView& view, const Call& call, int64_t values, Sequence<U>& sequence) {
    if (!view.has_rows()) return false;
    const int64_t steps = call.forward.steps, batch = call.forward.batch;
    auto* data = reinterpret_cast<U*>(view.data);
    switch (call.layout) {
      case Layout::time_major:
        sequence = {data, view.strides[0], view.strides[1]};
        return view.has_shape({steps, batch, values});
      case Layout::batch_first:
        sequence = {data, view.strides[1], view.strides[0]};
        return view.has_shape({batch, steps, values});
      case Layout::unbatched:
        sequence = {data, view.strides[0], 0};
        return view.has_shape({steps, values});
      case Layout::one_step:
        sequence = {data, 0, view.strides[0]};
        return view.has_shape({batch, values});
    }
    return false;
  }

  // (L*D, B, size); (L*D, size) without the batch; (B, size) for one step.
  template <class U>
  bool read_state(py::handle tensor, const Call& call, int64_t size, U*& state) const {
    state = nullptr;
    if (tensor.is_none()) return true;
    TensorView view;
    if (!read_as<U>(tensor, view) || !view.contiguous()) return false;
    state = reinterpret_cast<U*>(view.data);
    const int64_t parts = spec_.num_layers * spec_.num_directions;
    if (call.layout == Layout::unbatched) return view.has_shape({parts, size});
    if (call.layout == Layout::one_step) return view.has_shape({call.forward.batch, size});
    return view.has_shape({parts, call.forward.batch, size});
  }

  // The new tensors are read like those that are given: what `new_empty` does, others may have changed.

  bool make_sequence(py::handle like, const Call& call, int64_t values, bool swapped, py::object& made,
                     Sequence<T>& sequence) const {
    const int64_t* shape = call.x.shape;
    if (swapped)
      made = new_swapped_tensor(like, shape[0], shape[1], values);
    else if (call.x.ndim == 3)
      made = new_tensor(like, shape[0], shape[1], values);
    else
      made = new_tensor(like, shape[0], values);
    return read_sequence(made, call, values, sequence);
  }

  bool make_state(py::handle like, const Call& call, int64_t size, py::object& made, T*& state) const {
    const int64_t parts = spec_.num_layers * spec_.num_directions;
    if (call.layout == Layout::unbatched)
      made = new_tensor(like, parts, size);
    else if (call.layout == Layout::one_step)
      made = new_tensor(like, call.forward.batch, size);
    else
      made = new_tensor(like, parts, call.forward.batch, size);
    return read_state(made, call, size, state);
  }

  // All for the weights of a layer and direction, or none.
  bool make_gradients(const WeightTensors<const T>& weights, const std::vector<bool>& wanted,
                      WeightTensors<T>& dweights) const {
    const std::size_t size = weights.held.size() / weights.parts.size();
    py::tuple made(weights.held.size());
    for (std::size_t i = 0; i < made.size(); ++i) {
      const auto part = wanted.begin() + kFirstWeight + i / size * size;
      TensorView view;
      if (std::find(part, part + size, true) == part + size)
        made[i] = py::none();
      else if (!read(weights.held[i], view))
        return false;
      else
        made[i] = view.ndim == 1 ? new_tensor(weights.held[i], view.shape[0])
                                 : new_tensor(weights.held[i], view.shape[0], view.shape[1]);
    }
    return read_weights(made, true, dweights);
  }

  int64_t tape_numel(const Call& call) const {
    const TapeSize size =
        rnnkern::tape_size<T>(spec_, table_, call.forward.masks != nullptr, tape_has_outputs(call.forward));
    const int64_t padded = call.forward.steps * call.forward.batch;
    int64_t total = padded;
    if (call.forward.lengths) {
      total = 0;
      for (int64_t b = 0; b < call.forward.batch; ++b) total += call.forward.lengths[b];
    }
    return size.per_step * total + size.per_padded_step * padded;
  }

  // Methods of tensors are called on the way (is_neg, new_empty), which may run code of the user's own: PyTorch's modes
  // replace them, and finalizers of garbage may run in them. So this is asked last: are the elements where they were?
  bool in_place(py::handle tensor, const void* data) const {
    TensorView view;
    return tensor.is_none() || (reader_.read(tensor, view) && view.data == data);
  }
  bool in_place(const TensorCall& tensors, const Call& call) const {
    if (!in_place(tensors.x, call.x.data) || !in_place(tensors.h0, call.forward.h0) ||
        !in_place(tensors.c0, call.forward.c0))
      return false;
    for (std::size_t i = 0; i < call.masks.size(); ++i)
      if (!in_place(call.held_masks[i], call.masks[i])) return false;
    return true;
  }
  template <class U>
  bool in_place(const WeightTensors<U>& weights) const {
    for (std::size_t part = 0; part < weights.parts.size(); ++part) {
      const Weights<U>& w = weights.parts[part];
      std::size_t next = weights.held.size() / weights.parts.size() * part;
      for (const U* data : {w.ih, w.hh, w.bias_ih, w.bias_hh, w.hr, w.peephole})
        if (data && !in_place(weights.held[next++], data)) return false;
    }
    return true;
  }

  bool read_tape(py::handle tensor, const Call& call, TensorView& tape) const {
    return read(tensor, tape) && tape.ndim == 1 && tape.contiguous() && tape.shape[0] >= tape_numel(call);
  }

  const Spec spec_;
  const bool bias_;
  const KernelTable& table_;
  const TensorReader reader_;
};

std::shared_ptr<TensorNetworkBase> make_tensor_network(const py::object& spec, const TensorReader& reader,
                                                       const std::optional<std::string>& isa) {
  const Isa& chosen = isa ? find_isa(*isa) : default_isa();
  const bool bias = spec.attr("bias").cast<bool>();
  if (py::dtype::from_args(spec.attr("dtype")).itemsize() == 4)
    return std::make_shared<TensorNetwork<float>>(spec_of(spec), bias, chosen, reader);
  return std::make_shared<TensorNetwork<double>>(spec_of(spec), bias, chosen, reader);
}

// Between rows without padding (N, width), step after step the first batch_sizes[t] sequences, and padded ones
// (T, B, width). False: these are not such tensors.
template <bool to_padded>
bool copy_rows(const TensorReader& reader, py::handle packed, py::handle padded,
               const py::array_t<int64_t>& batch_sizes) {
  TensorView rows, sequence;
  // Read again after a method was called, which may have run code of the user's own.
  const auto read = [&] { return reader.read(packed, rows) && reader.read(padded, sequence); };
  if (!read() || !reader.is_plain(to_padded ? packed : padded) || !read()) return false;
  const int64_t *first = batch_sizes.data(), *last = first + batch_sizes.size();
  const int64_t total = std::accumulate(first, last, int64_t{0});
  if (!rows.contiguous() || !sequence.contiguous() || rows.itemsize != sequence.itemsize || rows.ndim != 2)
    return false;
  if (!rows.has_shape({total, rows.shape[1]}) || sequence.ndim != 3) return false;
  const int64_t batch = sequence.shape[1];
  if (!sequence.has_shape({batch_sizes.size(), batch, rows.shape[1]})) return false;
  if (std::any_of(first, last, [&](int64_t size) { return size < 0 || size > batch; })) return false;

  const int64_t row_bytes = rows.shape[1] * rows.itemsize;
  char *at_rows = rows.data, *at_sequence = sequence.data;
  without_gil([&] {
    for (const int64_t* size = first; size != last; ++size) {
      const int64_t bytes = *size * row_bytes;
      std::memcpy(to_padded ? at_sequence : at_rows, to_padded ? at_rows : at_sequence, bytes);
      at_rows += bytes;
      at_sequence += batch * row_bytes;
    }
  });
  return true;
}

}  // namespace

void bind_tensors(py::module_& module) {
  using namespace py::literals;
  py::enum_<Layout>(module, "Layout")
      .value("TIME_MAJOR", Layout::time_major)
      .value("BATCH_FIRST", Layout::batch_first)
      .value("UNBATCHED", Layout::unbatched)
      .value("ONE_STEP", Layout::one_step);
  py::class_<TensorReader>(module, "TensorReader").def(py::init<py::object, py::tuple>(), "api"_a, "types"_a);
  py::class_<TensorPanels, std::shared_ptr<TensorPanels>>(module, "TensorPanels");
  using Object = py::handle;
  py::class_<TensorNetworkBase, std::shared_ptr<TensorNetworkBase>>(module, "TensorNetwork")
      .def(py::init(&make_tensor_network), "spec"_a, "reader"_a, "isa"_a = py::none())
      .def("pack", &TensorNetworkBase::pack, "threads"_a, "weights"_a)
      .def(
          "run",
          [](const TensorNetworkBase& network, int threads, Object weights, Layout layout, Object x, Object h0,
             Object c0, Object lengths, Object masks, bool keep) {
            return network.run(threads, {weights, layout, x, h0, c0, lengths, masks}, keep);
          },
          "threads"_a, "weights"_a, "layout"_a, "x"_a, "h0"_a, "c0"_a, "lengths"_a, "masks"_a, "keep"_a)
      .def(
          "backward",
          [](const TensorNetworkBase& network, int threads, Object weights, Layout layout, Object x, Object h0,
             Object c0, Object lengths, Object masks, Object y, Object tape, Object dy, Object dhn, Object dcn,
             const std::vector<bool>& wanted, bool dense) {
            return network.backward(threads, {weights, layout, x, h0, c0, lengths, masks},
                                    {y, tape, dy, dhn, dcn, wanted, dense});
          },
          "threads"_a, "weights"_a, "layout"_a, "x"_a, "h0"_a, "c0"_a, "lengths"_a, "masks"_a, "y"_a, "tape"_a, "dy"_a,
          "dhn"_a, "dcn"_a, "wanted"_a, "dense"_a)
      .def("tape_size", &TensorNetworkBase::tape_size, "masked"_a, "outputs"_a);
  module.def("unpack_rows", &copy_rows<true>, "reader"_a, "packed"_a, "padded"_a, "batch_sizes"_a);
  module.def("pack_rows", &copy_rows<false>, "reader"_a, "packed"_a, "padded"_a, "batch_sizes"_a);
}

}  // namespace rnnkern
