// Networks, their packed copies and their tapes: everything is checked with the GIL held, then one call runs without
// it.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <array>
#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>

#include "bind.hpp"
#include "bind_arguments.hpp"
#include "bind_gil.hpp"
#include "bind_memory.hpp"
#include "bind_spec.hpp"
#include "dispatch.hpp"
#include "driver.hpp"

namespace rnnkern {
namespace {

// Mixes the bits of a few dozen elements of an array: enough to notice an update of its values, almost for free.
class Fingerprint {
 public:
  template <class T>
  void add(const T* data, int64_t count) {
    constexpr int64_t samples = 64;
    const int64_t stride = count > samples ? count / samples : 1;
    for (int64_t i = 0; i < count; i += stride) add(data[i]);
    if (count > 0) add(data[count - 1]);
  }
  template <class T>
  void add(T value) {
    uint64_t bits = 0;
    std::memcpy(&bits, &value, sizeof(T));
    state_ = (state_ ^ bits) * 0x100000001b3u;
    state_ ^= state_ >> 29;
  }
  template <class T>
  void add(const Sequence<const T>& x, int64_t steps, int64_t batch, int64_t width) {
    constexpr int64_t samples = 64;
    const int64_t rows = steps * batch, stride = rows > samples ? rows / samples : 1;
    for (int64_t row = 0; row < rows; row += stride)
      add(x.data[row / batch * x.stride_t + row % batch * x.stride_b + row % width]);
  }
  bool operator==(const Fingerprint& other) const { return state_ == other.state_; }

 private:
  uint64_t state_ = 0xcbf29ce484222325u;
};

// A call's arguments and results, as NumPy arrays and as the driver takes them.
template <class T>
struct BoundCall {
  SequenceArgument<T> x;
  StateArgument<T> state;
  std::optional<std::vector<int64_t>> lengths;
  std::vector<py::array_t<T>> masks;
  std::vector<const T*> mask_data;
  py::array_t<T> y, hn, cn;
  Place y_place;  // of one that was given
  ForwardCall<T> call{};

  // That the user's memory is still where it was.
  void confirm() const {
    rnnkern::confirm("x", x.holder, x.place);
    state.confirm("state");
    if (y_place.data) rnnkern::confirm("out", y, y_place);
  }
  py::tuple results(bool cell_state) const {
    if (cell_state) return py::make_tuple(y, py::make_tuple(hn, cn));
    return py::make_tuple(y, hn);
  }
};

constexpr std::size_t kWeights = 7;  // of one part: the members of Weights

class TapeBase {
 public:
  virtual ~TapeBase() = default;
  virtual std::size_t bytes() const = 0;
};

class NetworkBase {
 public:
  virtual ~NetworkBase() = default;
  virtual py::tuple run(py::handle x, py::handle state, py::handle lengths, bool return_sequence) const = 0;
  virtual py::tuple step(py::handle x, py::handle state, py::handle out) const = 0;
  virtual py::tuple forward(py::handle x, py::handle state, py::handle lengths, const py::list& masks, bool recompute,
                            bool return_sequence) const = 0;
  virtual py::tuple backward(const std::shared_ptr<TapeBase>& tape, py::handle dy, py::handle dstate, bool want_x,
                             bool want_state, bool want_weights) const = 0;
  virtual py::list trace(py::handle x, py::handle state, py::handle lengths) const = 0;
  virtual std::shared_ptr<NetworkBase> freeze() const = 0;
  virtual py::tuple check(py::handle x, py::handle state, py::handle lengths) const = 0;
  virtual py::tuple check_step(py::handle x, py::handle state, py::handle out) const = 0;
  virtual py::tuple check_gradients(int64_t steps, int64_t batch, bool unbatched, bool return_sequence, py::handle dy,
                                    py::handle dstate) const = 0;
  virtual py::dict plan(int64_t steps, int64_t batch, py::handle lengths) const = 0;
  virtual const char* isa() const = 0;
};

template <class T>
struct BoundTape : TapeBase {
  BoundCall<T> bound;
  std::shared_ptr<const Tape<T>> tape;
  uint64_t network;  // the id of the one that made it
  Fingerprint inputs, weights;
  std::vector<Place> places;  // of x and y

  std::vector<Place> current_places() const { return {Place(bound.x.holder), Place(bound.y)}; }
  std::size_t bytes() const override {
    std::size_t bytes = tape_bytes(*tape);
    for (const auto& array : bound.masks) bytes += array.nbytes();
    for (const auto& array : bound.state.members) bytes += array.nbytes();
    return bytes;
  }
};

template <class T>
class Network : public NetworkBase {
 public:
  // weights: the arrays of every part in PyTorch's order, kept alive here and read at each call.
  Network(const Spec& spec, const Isa& isa, bool batch_first,
          const std::vector<std::array<py::object, kWeights>>& parts)
      : spec_(spec), isa_(isa), batch_first_(batch_first) {
    for (const auto& part : parts) {
      Weights<const T> weights{};
      const T** members[kWeights] = {&weights.ih, &weights.hh,      &weights.bias_ih, &weights.bias_hh,
                                     &weights.hr, &weights.bias_hr, &weights.peephole};
      for (std::size_t i = 0; i < part.size(); ++i) {
        if (part[i].is_none()) continue;
        // A view of our own: the user's array may be given another shape or dtype in place.
        const py::object view = part[i].attr("view")();
        if (!py::isinstance<py::array_t<T, py::array::c_style>>(view))
          throw py::type_error("weights: expected contiguous arrays of the network's dtype, got " + describe(view));
        const auto array = py::reinterpret_borrow<py::array_t<T>>(view);
        *members[i] = array.data();
        arrays_.push_back(array);
      }
      weights_.push_back(weights);
    }
  }

  py::tuple run(py::handle x, py::handle state, py::handle lengths, bool return_sequence) const override {
    BoundCall<T> bound = bind(x, state, lengths, return_sequence);
    run_bound(bound);
    return bound.results(spec_.has_cell_state());
  }

  // A call with one step. `out` may take y.
  py::tuple step(py::handle x, py::handle state, py::handle out) const override {
    BoundCall<T> bound = bind_step(x, state, out);
    run_bound(bound);
    return bound.results(spec_.has_cell_state());
  }

  // (x_t as (1, B, I), state as for `check`, unbatched): checked as for a step.
  py::tuple check_step(py::handle x, py::handle state, py::handle out) const override {
    const BoundCall<T> bound = bind_step(x, state, out);
    const py::ssize_t shape[] = {1, bound.x.batch, spec_.input_size};
    return py::make_tuple(bound.x.holder.attr("reshape")(shape[0], shape[1], shape[2]),
                          batched(bound.state.members, bound.x), bound.x.unbatched);
  }

  py::tuple forward(py::handle x, py::handle state, py::handle lengths, const py::list& masks, bool recompute,
                    bool return_sequence) const override {
    live("forward");
    auto tape = std::make_shared<BoundTape<T>>();
    BoundCall<T>& bound = tape->bound;
    bound = bind(x, state, lengths, return_sequence);
    own_inputs(bound, x);
    add_masks(bound, masks);
    relink(bound);
    const int threads = context_threads();
    bound.confirm();
    without_gil(
        [&] { tape->tape = rnnkern::forward<T>(spec_, *isa_.table, weights_.data(), bound.call, recompute, threads); });
    bound.confirm();  // other threads have run
    tape->network = id_;
    tape->inputs = input_fingerprint(bound);
    tape->places = tape->current_places();
    tape->weights = weight_fingerprint();
    const py::tuple results = bound.results(spec_.has_cell_state());
    return py::make_tuple(results[0], results[1], std::static_pointer_cast<TapeBase>(tape));
  }

  py::tuple backward(const std::shared_ptr<TapeBase>& given, py::handle dy, py::handle dstate, bool want_x,
                     bool want_state, bool want_weights) const override {
    live("backward");
    const auto tape = std::dynamic_pointer_cast<BoundTape<T>>(given);
    if (!tape || tape->network != id_)
      throw py::value_error("tape: expected a tape of this layer, got another layer's");
    BoundCall<T>& bound = tape->bound;
    BackwardCall<T> call{};
    call.forward = bound.call;
    const auto gradients = check_output_gradients(bound.x, bound.call.return_sequence, dy);
    call.dy = gradients.view;
    const auto dstates = checked_state<T>("dstate", dstate, spec_, bound.x.steps, bound.x.batch, bound.x.unbatched);
    if (dy.is_none() && dstates.empty())
      throw py::value_error("dy, dstate: expected at least one of them, got None for both");
    call.dhn = dstates.h();
    call.dcn = dstates.c();

    py::object dx = py::none(), dh0 = py::none(), dc0 = py::none();
    if (want_x) {
      py::array_t<T> array = sequence_array(bound.x, spec_.input_size);
      call.dx = sequence_view(array, bound.x, spec_.input_size);
      dx = array;
    }
    if (want_state) {
      py::array_t<T> array = state_array(bound.x, spec_.output_size());
      call.dh0 = array.mutable_data();
      dh0 = array;
      if (spec_.has_cell_state()) {
        array = state_array(bound.x, spec_.hidden_size);
        call.dc0 = array.mutable_data();
        dc0 = array;
      }
    }
    std::vector<Weights<T>> dweights(want_weights ? weights_.size() : 0);
    const py::list weight_arrays = want_weights ? make_gradients(dweights) : py::list();
    if (want_weights) call.dweights = dweights.data();
    const int threads = context_threads();
    if (!dy.is_none()) confirm("dy", gradients.holder, gradients.place);
    dstates.confirm("dstate");
    check_unchanged(*tape);
    without_gil([&] { rnnkern::backward<T>(spec_, *isa_.table, weights_.data(), *tape->tape, call, threads); });
    const py::object state = !want_state ? py::none() : spec_.has_cell_state() ? py::make_tuple(dh0, dc0) : dh0;
    return py::make_tuple(dx, state, weight_arrays);
  }

  // Per part: the values of each gate by step, then h; (T, B, H).
  py::list trace(py::handle x, py::handle state, py::handle lengths) const override {
    live("trace");
    BoundCall<T> bound = bind(x, state, lengths, true);
    const int64_t steps = bound.x.steps, batch = bound.x.batch, wanted = trace_values(spec_);
    py::list parts;
    std::vector<T*> values, hidden;
    for (std::size_t part = 0; part < weights_.size(); ++part) {
      py::list arrays;
      for (int64_t i = 0; i <= wanted; ++i) {
        auto array = new_array<T>({steps, batch, i < wanted ? spec_.hidden_size : spec_.output_size()});
        (i < wanted ? values : hidden).push_back(array.mutable_data());
        arrays.append(array);
      }
      parts.append(arrays);
    }
    const int threads = context_threads();
    bound.confirm();
    without_gil([&] {
      rnnkern::trace<T>(spec_, *isa_.table, weights_.data(), bound.call, values.data(), hidden.data(), threads);
    });
    return parts;
  }

  std::shared_ptr<NetworkBase> freeze() const override {
    live("freeze");
    auto frozen =
        std::make_shared<Network<T>>(spec_, isa_, batch_first_, std::vector<std::array<py::object, kWeights>>());
    const int threads = context_threads();
    without_gil([&] { frozen->packed_ = pack<T>(spec_, *isa_.table, weights_.data(), threads); });
    return frozen;
  }

  // (x as (T, B, I), state as (L*D, B, size) arrays or None, lengths or None, unbatched): checked as for a call.
  py::tuple check(py::handle x, py::handle state, py::handle lengths) const override {
    const auto checked = check_inputs(x, state, lengths);
    const SequenceArgument<T>& input = checked.x;
    py::object ends = py::none();
    if (checked.lengths) ends = py::array_t<int64_t>(input.batch, checked.lengths->data());
    return py::make_tuple(time_major(input), batched(checked.state.members, input), ends, input.unbatched);
  }

  // (dy as (T, B, D*O) or (B, D*O) or None, dstate as (L*D, B, size) arrays or None): checked as for backward.
  py::tuple check_gradients(int64_t steps, int64_t batch, bool unbatched, bool return_sequence, py::handle dy,
                            py::handle dstate) const override {
    SequenceArgument<T> like{};
    like.steps = steps;
    like.batch = batch;
    like.unbatched = unbatched;
    const auto gradients = check_output_gradients(like, return_sequence, dy);
    const auto states = checked_state<T>("dstate", dstate, spec_, steps, batch, unbatched);
    if (dy.is_none() && states.empty())
      throw py::value_error("dy, dstate: expected at least one of them, got None for both");
    py::object array = py::none();
    if (!dy.is_none() && return_sequence) array = time_major(gradients);
    if (!dy.is_none() && !return_sequence) {
      array = gradients.holder;
      if (unbatched) array = array[py::make_tuple(py::none(), py::ellipsis())];
    }
    return py::make_tuple(array, batched(states.members, like));
  }

  py::dict plan(int64_t steps, int64_t batch, py::handle lengths) const override {
    const auto checked = checked_lengths(read_lengths(lengths), batch, steps);
    check_volume(spec_, steps, batch);
    const Explanation explained =
        explain<T>(spec_, *isa_.table, steps, batch, checked ? checked->data() : nullptr, !packed_, context_threads());
    py::dict result;
    result["directions"] = explained.plan.directions;
    result["rows"] = explained.plan.rows;
    result["units"] = explained.plan.units;
    result["threads"] = explained.plan.threads();
    result["steps"] = checked ? std::accumulate(checked->begin(), checked->end(), int64_t{0}) : steps * batch;
    result["block_steps"] = explained.block_steps;
    result["kept_values"] = explained.kept_values;
    return result;
  }

  const char* isa() const override { return isa_.name; }

 private:
  int64_t width() const { return spec_.num_directions * spec_.output_size(); }

  void live(const char* what) const {
    if (packed_) throw py::type_error(std::string(what) + ": a frozen layer is for inference only");
  }

  // Without results.
  BoundCall<T> check_inputs(py::handle x, py::handle state, py::handle lengths) const {
    BoundCall<T> bound;
    Lengths given = read_lengths(lengths);
    bound.x = checked_sequence<T>("x", x, spec_.input_size, batch_first_);
    check_volume(spec_, bound.x.steps, bound.x.batch);
    bound.state = checked_state<T>("state", state, spec_, bound.x.steps, bound.x.batch, bound.x.unbatched);
    bound.lengths = checked_lengths(std::move(given), bound.x.batch, bound.x.steps);
    return bound;
  }

  BoundCall<T> bind(py::handle x, py::handle state, py::handle lengths, bool return_sequence) const {
    BoundCall<T> bound = check_inputs(x, state, lengths);
    if (return_sequence)
      bound.y = sequence_array(bound.x, width());
    else
      bound.y = bound.x.unbatched ? new_array<T>({width()}) : new_array<T>({bound.x.batch, width()});
    make_states(bound);
    fill_call(bound, return_sequence, width());
    return bound;
  }

  BoundCall<T> bind_step(py::handle x, py::handle state, py::handle out) const {
    if (spec_.num_directions != 1)
      throw py::value_error("step: a bidirectional layer has no single step, it reads the whole sequence");
    BoundCall<T> bound;
    const py::array x_t = checked_array<T>("x_t", x, {{"B", spec_.input_size}, {spec_.input_size}});
    const py::array_t<T> rows = contiguous<T>(x_t);
    bound.x.holder = rows;
    bound.x.place = Place(rows);
    bound.x.unbatched = rows.ndim() == 1;
    bound.x.steps = 1;
    bound.x.batch = bound.x.unbatched ? 1 : rows.shape(0);
    bound.x.view = {rows.data(), 0, spec_.input_size};
    bound.state = checked_state<T>("state", state, spec_, 1, bound.x.batch, bound.x.unbatched);
    const int64_t width = spec_.output_size();
    if (out.is_none()) {
      bound.y = bound.x.unbatched ? new_array<T>({width}) : new_array<T>({bound.x.batch, width});
    } else {
      const py::array given = checked_array<T>("out", out, {one_step(bound.x)});
      constexpr int needed =
          py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_ | py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
      if ((given.flags() & needed) != needed) throw py::value_error("out: expected a contiguous, writable array");
      bound.y = py::reinterpret_borrow<py::array_t<T>>(out);
      bound.y_place = Place(bound.y);
    }
    make_states(bound);
    fill_call(bound, false, width);
    return bound;
  }

  // The shape of the outputs of one step.
  Dimensions one_step(const SequenceArgument<T>& x) const {
    Dimensions shape;
    if (!x.unbatched) shape.emplace_back(x.batch);
    shape.emplace_back(width());
    return shape;
  }

  // The tape outlives the caller's interest in the initial state: it may be overwritten, as a buffer for the next one.
  // And an array of a class of the user's may refer to the tape: a cycle that Python does not see, because arrays hide
  // what they refer to.
  void own_inputs(BoundCall<T>& bound, py::handle x) const {
    bound.state.confirm("state");
    StateArgument<T> copies;
    for (const auto& member : bound.state.members) copies.add(py::array_t<T>(py::object(member.attr("copy")())));
    bound.state = std::move(copies);
    if (!py::type::handle_of(x).is(py::type::handle_of(bound.hn)) && bound.x.holder.base())
      place_sequence(bound.x, py::array(bound.x.holder.attr("copy")()), batch_first_);
    place_inputs(bound);
  }

  void add_masks(BoundCall<T>& bound, const py::list& masks) const {
    const int64_t steps = bound.x.steps, batch = bound.x.batch;
    for (const py::handle mask : masks)
      bound.masks.push_back(contiguous<T>(checked_array<T>("masks", mask, {{steps, batch, width()}})));
    if (!bound.masks.empty() && static_cast<int64_t>(bound.masks.size()) != spec_.num_layers - 1)
      throw py::value_error("masks: expected " + std::to_string(spec_.num_layers - 1) + ", got " +
                            std::to_string(bound.masks.size()));
    for (const auto& mask : bound.masks) bound.mask_data.push_back(mask.data());
  }

  void check_unchanged(const BoundTape<T>& tape) const {
    if (tape.places != tape.current_places() || !(tape.inputs == input_fingerprint(tape.bound)))
      throw std::runtime_error("tape: x or y has changed since forward; backward needs them as they were");
    if (!(tape.weights == weight_fingerprint()))
      throw std::runtime_error("tape: the weights have changed since forward; backward needs them as they were");
  }

  py::array_t<T> sequence_array(const SequenceArgument<T>& x, int64_t columns) const {
    if (x.unbatched) return new_array<T>({x.steps, columns});
    if (batch_first_) return new_array<T>({x.batch, x.steps, columns});
    return new_array<T>({x.steps, x.batch, columns});
  }
  Sequence<T> sequence_view(py::array_t<T>& array, const SequenceArgument<T>& x, int64_t columns) const {
    if (!x.unbatched && batch_first_) return {array.mutable_data(), columns, x.steps * columns};
    return {array.mutable_data(), x.batch * columns, columns};
  }
  py::array_t<T> state_array(const SequenceArgument<T>& x, int64_t size) const {
    const int64_t parts = spec_.num_layers * spec_.num_directions;
    return x.unbatched ? new_array<T>({parts, size}) : new_array<T>({parts, x.batch, size});
  }
  void make_states(BoundCall<T>& bound) const {
    bound.hn = state_array(bound.x, spec_.output_size());
    if (spec_.has_cell_state()) bound.cn = state_array(bound.x, spec_.hidden_size);
  }

  void fill_call(BoundCall<T>& bound, bool return_sequence, int64_t columns) const {
    ForwardCall<T>& call = bound.call;
    call.steps = bound.x.steps;
    call.batch = bound.x.batch;
    place_inputs(bound);
    call.return_sequence = return_sequence;
    call.y =
        return_sequence ? sequence_view(bound.y, bound.x, columns) : Sequence<T>{bound.y.mutable_data(), 0, columns};
    call.hn = bound.hn.mutable_data();
    call.cn = spec_.has_cell_state() ? bound.cn.mutable_data() : nullptr;
    relink(bound);
  }
  static void place_inputs(BoundCall<T>& bound) {
    bound.call.x = bound.x.view;
    bound.call.h0 = bound.state.h();
    bound.call.c0 = bound.state.c();
  }
  // The pointers into the bound call itself.
  static void relink(BoundCall<T>& bound) {
    bound.call.lengths = bound.lengths ? bound.lengths->data() : nullptr;
    bound.call.masks = bound.mask_data.empty() ? nullptr : bound.mask_data.data();
  }

  void run_bound(BoundCall<T>& bound) const {
    relink(bound);
    const int threads = context_threads();
    bound.confirm();
    without_gil([&] {
      rnnkern::run<T>(spec_, *isa_.table, packed_ ? nullptr : weights_.data(), packed_.get(), bound.call, threads);
    });
  }

  SequenceArgument<T> check_output_gradients(const SequenceArgument<T>& x, bool return_sequence, py::handle dy) const {
    SequenceArgument<T> result{};
    if (dy.is_none()) return result;
    const int64_t first = batch_first_ ? x.batch : x.steps, second = batch_first_ ? x.steps : x.batch;
    if (return_sequence) {
      checked_array<T>("dy", dy, {x.unbatched ? Dimensions{x.steps, width()} : Dimensions{first, second, width()}});
      return checked_sequence<T>("dy", dy, width(), batch_first_);
    }
    const auto rows = contiguous<T>(checked_array<T>("dy", dy, {one_step(x)}));
    result.holder = rows;
    result.place = Place(rows);
    result.view = {rows.data(), 0, width()};
    return result;
  }

  py::list make_gradients(std::vector<Weights<T>>& dweights) const {
    py::list arrays;
    std::size_t next = 0;
    for (std::size_t part = 0; part < weights_.size(); ++part) {
      const Weights<const T>& like = weights_[part];
      Weights<T>& out = dweights[part];
      const auto make = [&](const T* present, T** to) {
        if (!present) return;
        const py::array_t<T>& shape = arrays_[next++];
        auto array = new_array<T>({shape.shape(), shape.shape() + shape.ndim()});
        *to = array.mutable_data();
        arrays.append(array);
      };
      make(like.ih, &out.ih);
      make(like.hh, &out.hh);
      make(like.bias_ih, &out.bias_ih);
      make(like.bias_hh, &out.bias_hh);
      make(like.hr, &out.hr);
      make(like.bias_hr, &out.bias_hr);
      make(like.peephole, &out.peephole);
    }
    return arrays;
  }

  Fingerprint input_fingerprint(const BoundCall<T>& bound) const {
    Fingerprint print;
    const ForwardCall<T>& call = bound.call;
    print.add(call.x, call.steps, call.batch, spec_.input_size);
    // Its size as it was: the user's array may be given another dtype in place.
    const int64_t rows = call.return_sequence ? call.steps * call.batch : call.batch;
    print.add(static_cast<const T*>(call.y.data), rows * width());
    return print;
  }
  Fingerprint weight_fingerprint() const {
    Fingerprint print;
    for (const auto& array : arrays_) print.add(array.data(), array.size());
    return print;
  }

  // As (T, B, N), whatever it came as.
  py::object time_major(const SequenceArgument<T>& sequence) const {
    const py::array& array = sequence.holder;
    if (sequence.unbatched)
      return array[py::make_tuple(py::ellipsis(), py::none(), py::slice(py::none(), py::none(), py::none()))];
    return batch_first_ ? array.attr("swapaxes")(0, 1) : py::object(array);
  }
  py::object batched(const std::vector<py::array_t<T>>& members, const SequenceArgument<T>& x) const {
    if (members.empty()) return py::none();
    py::tuple result(members.size());
    for (std::size_t i = 0; i < members.size(); ++i) {
      const py::array& array = members[i];
      result[i] = x.unbatched
                      ? py::object(array[py::make_tuple(py::slice(py::none(), py::none(), py::none()), py::none())])
                      : py::object(array);
    }
    return result;
  }

  static uint64_t next_id() {
    static std::atomic<uint64_t> last{0};
    return ++last;
  }

  const uint64_t id_ = next_id();
  const Spec spec_;
  const Isa& isa_;
  const bool batch_first_;
  std::vector<py::array_t<T>> arrays_;
  std::vector<Weights<const T>> weights_;
  std::shared_ptr<const Packed<T>> packed_;
};

std::shared_ptr<NetworkBase> make_network(const py::object& spec, bool batch_first,
                                          const std::vector<std::array<py::object, kWeights>>& parts,
                                          const std::optional<std::string>& isa) {
  const Isa& chosen = isa ? find_isa(*isa) : default_isa();
  const auto dtype = py::dtype::from_args(spec.attr("dtype"));
  if (dtype.itemsize() == 4) return std::make_shared<Network<float>>(spec_of(spec), chosen, batch_first, parts);
  return std::make_shared<Network<double>>(spec_of(spec), chosen, batch_first, parts);
}

}  // namespace

void bind_network(py::module_& module) {
  using namespace py::literals;
  py::class_<TapeBase, std::shared_ptr<TapeBase>>(module, "Tape").def_property_readonly("nbytes", &TapeBase::bytes);
  py::class_<NetworkBase, std::shared_ptr<NetworkBase>>(module, "Network")
      .def(py::init(&make_network), "spec"_a, "batch_first"_a, "weights"_a, "isa"_a = py::none())
      .def("run", &NetworkBase::run, "x"_a, "state"_a = py::none(), "lengths"_a = py::none(),
           "return_sequence"_a = true)
      .def("step", &NetworkBase::step, "x_t"_a, "state"_a = py::none(), "out"_a = py::none())
      .def("forward", &NetworkBase::forward, "x"_a, "state"_a, "lengths"_a, "masks"_a, "recompute"_a,
           "return_sequence"_a)
      .def("backward", &NetworkBase::backward, "tape"_a, "dy"_a, "dstate"_a, "want_x"_a, "want_state"_a,
           "want_weights"_a)
      .def("trace", &NetworkBase::trace, "x"_a, "state"_a, "lengths"_a)
      .def("freeze", &NetworkBase::freeze)
      .def("check", &NetworkBase::check, "x"_a, "state"_a, "lengths"_a)
      .def("check_step", &NetworkBase::check_step, "x_t"_a, "state"_a, "out"_a)
      .def("check_gradients", &NetworkBase::check_gradients, "steps"_a, "batch"_a, "unbatched"_a, "return_sequence"_a,
           "dy"_a, "dstate"_a)
      .def("plan", &NetworkBase::plan, "steps"_a, "batch"_a, "lengths"_a)
      .def_property_readonly("isa", &NetworkBase::isa);
}

}  // namespace rnnkern
