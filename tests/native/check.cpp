// Runs the cases of a file through the driver without Python and writes the results to another file; check.py writes
// the one and compares the other with the reference. For processors that are emulated and for sanitizers.
//
//   native_check ISA THREADS CALLERS CASES RESULTS
//
// CALLERS threads run every case at the same time and must get the same bytes. Fails when inference, packed inference
// and forward differ in a bit.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "available.hpp"
#include "cross_entropy.hpp"
#include "dispatch.hpp"
#include "driver.hpp"

using namespace rnnkern;

namespace {

[[noreturn]] void fail(const std::string& why) {
  std::fprintf(stderr, "native_check: %s\n", why.c_str());
  std::exit(1);
}

class Reader {
 public:
  explicit Reader(const std::vector<char>& bytes) : at_(bytes.data()), end_(at_ + bytes.size()) {}

  template <class T>
  std::vector<T> array(int64_t n) {
    if (n < 0 || static_cast<int64_t>(end_ - at_) / static_cast<int64_t>(sizeof(T)) < n)
      fail("the case file is too short");
    std::vector<T> values(static_cast<std::size_t>(n));
    if (n > 0) std::memcpy(values.data(), at_, values.size() * sizeof(T));
    at_ += values.size() * sizeof(T);
    return values;
  }
  template <class T>
  T value() {
    return array<T>(1)[0];
  }
  int64_t integer() { return value<int64_t>(); }

 private:
  const char* at_;
  const char* end_;
};

using Bytes = std::vector<char>;

template <class T>
void append(Bytes& out, const std::vector<T>& values) {
  const char* data = reinterpret_cast<const char*>(values.data());
  out.insert(out.end(), data, data + values.size() * sizeof(T));
}

Spec read_spec(Reader& in) {
  Spec spec{};
  spec.family = static_cast<CellFamily>(in.integer());
  spec.input_size = in.integer();
  spec.hidden_size = in.integer();
  spec.proj_size = in.integer();
  spec.num_layers = in.integer();
  spec.num_directions = in.integer();
  spec.softmax = in.integer() != 0;
  spec.peephole = in.integer() != 0;
  spec.coupling = static_cast<Coupling>(in.integer());
  spec.clip = in.value<double>();
  for (auto& direction : spec.activations)
    for (Activation& f : direction) {
      f.kind = static_cast<ActivationKind>(in.integer());
      f.alpha = in.value<double>();
      f.beta = in.value<double>();
    }
  return spec;
}

// The arrays of one network, weights or their gradients.
template <class T>
struct Parameters {
  std::vector<std::vector<T>> arrays;  // in the order of the parts and, within one, of Weights' fields
  std::vector<Weights<T>> views;

  // next(n) makes the array of n elements.
  template <class Next>
  Parameters(const Spec& spec, bool bias, Next next) {
    const int64_t parts = spec.num_layers * spec.num_directions;
    arrays.reserve(static_cast<std::size_t>(parts * 7));
    auto add = [&](bool present, int64_t n) -> T* {
      if (!present) return nullptr;
      arrays.push_back(next(n));
      return arrays.back().data();
    };
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t rows = spec.gates() * spec.hidden_size;
      Weights<T> w{};
      w.ih = add(true, rows * spec.layer_input_size(part / spec.num_directions));
      w.hh = add(true, rows * spec.output_size());
      w.bias_ih = add(bias, rows);
      w.bias_hh = add(bias, rows);
      w.hr = add(spec.proj_size > 0, spec.proj_size * spec.hidden_size);
      w.bias_hr = add(bias && spec.family == CellFamily::jordan, spec.proj_size);
      w.peephole = add(spec.peephole, 3 * spec.hidden_size);
      views.push_back(w);
    }
  }

  std::vector<Weights<const T>> constant() const {
    std::vector<Weights<const T>> out;
    for (const Weights<T>& w : views) out.push_back({w.ih, w.hh, w.bias_ih, w.bias_hh, w.hr, w.bias_hr, w.peephole});
    return out;
  }
};

// y, h and c of one call, filled with NaN beforehand: everything must be written.
template <class T>
struct Outputs {
  std::vector<T> y, h, c;

  void attach(ForwardCall<T>& call, int64_t width) {
    call.y = {y.data(), call.batch * width, width};
    call.hn = h.data();
    call.cn = c.empty() ? nullptr : c.data();
  }
  bool same_bits(const Outputs& other) const {
    auto same = [](const std::vector<T>& a, const std::vector<T>& b) {
      return a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
    };
    return same(y, other.y) && same(h, other.h) && same(c, other.c);
  }
};

template <class T>
std::vector<T> nans(int64_t n) {
  return std::vector<T>(static_cast<std::size_t>(n), std::numeric_limits<T>::quiet_NaN());
}
template <class T>
auto pointer(std::vector<T>& values) {
  return values.empty() ? nullptr : values.data();
}
template <class T>
auto pointer(const std::vector<T>& values) {
  return values.empty() ? nullptr : values.data();
}

template <class T>
void run_network(Reader& in, Bytes& out, const KernelTable& table, int threads) {
  const Spec spec = read_spec(in);
  const bool bias = in.integer() != 0;
  const int64_t steps = in.integer(), batch = in.integer();
  const bool has_lengths = in.integer() != 0;
  const bool recompute = in.integer() != 0, return_sequence = in.integer() != 0;

  const int64_t parts = spec.num_layers * spec.num_directions;
  const int64_t width = spec.num_directions * spec.output_size();
  const int64_t h_size = parts * batch * spec.output_size();
  const int64_t c_size = spec.has_cell_state() ? parts * batch * spec.hidden_size : 0;
  const int64_t x_size = steps * batch * spec.input_size;
  const int64_t y_size = (return_sequence ? steps : 1) * batch * width;

  const auto lengths = in.array<int64_t>(has_lengths ? batch : 0);
  const auto x = in.array<T>(x_size);
  const auto h0 = in.array<T>(h_size), c0 = in.array<T>(c_size);
  const Parameters<T> weights(spec, bias, [&](int64_t n) { return in.array<T>(n); });
  const auto weight_views = weights.constant();
  const auto dy = in.array<T>(y_size), dh = in.array<T>(h_size), dc = in.array<T>(c_size);

  ForwardCall<T> call{};
  call.steps = steps;
  call.batch = batch;
  call.lengths = has_lengths ? lengths.data() : nullptr;
  call.x = {x.data(), batch * spec.input_size, spec.input_size};
  call.h0 = h0.data();
  call.c0 = pointer(c0);
  call.return_sequence = return_sequence;

  const Outputs<T> blank{nans<T>(y_size), nans<T>(h_size), nans<T>(c_size)};
  Outputs<T> inferred = blank, frozen = blank, result = blank;
  inferred.attach(call, width);
  run<T>(spec, table, weight_views.data(), nullptr, call, threads);
  const auto packed = pack<T>(spec, table, weight_views.data(), threads);
  frozen.attach(call, width);
  run<T>(spec, table, nullptr, packed.get(), call, threads);
  result.attach(call, width);
  const auto tape = forward<T>(spec, table, weight_views.data(), call, recompute, threads);
  if (!result.same_bits(inferred)) fail("inference differs from forward");
  if (!result.same_bits(frozen)) fail("packed inference differs from forward");

  const Parameters<T> dweights(spec, bias, nans<T>);
  auto dx = nans<T>(x_size), dh0 = nans<T>(h_size), dc0 = nans<T>(c_size);
  BackwardCall<T> back{};
  back.forward = call;
  back.dy = {dy.data(), batch * width, width};
  back.dhn = dh.data();
  back.dcn = pointer(dc);
  back.dx = {dx.data(), batch * spec.input_size, spec.input_size};
  back.dh0 = dh0.data();
  back.dc0 = pointer(dc0);
  back.dweights = dweights.views.data();
  backward<T>(spec, table, weight_views.data(), *tape, back, threads);

  for (const auto* values : {&result.y, &result.h, &result.c, &dx, &dh0, &dc0}) append(out, *values);
  for (const auto& values : dweights.arrays) append(out, values);
}

template <class T>
void run_output_layer(Reader& in, Bytes& out, const KernelTable& table, int threads) {
  CrossEntropy<T> call{};
  call.positions = in.integer();
  call.width = in.integer();
  call.classes = in.integer();
  call.mean = in.integer() != 0;
  call.gradients = true;
  const bool has_bias = in.integer() != 0;
  const auto h = in.array<T>(call.positions * call.width), weight = in.array<T>(call.classes * call.width);
  const auto bias = in.array<T>(has_bias ? call.classes : 0);
  call.count = in.integer();
  const auto counted = in.array<int64_t>(call.count), targets = in.array<int64_t>(call.count);
  auto dh = nans<T>(call.positions * call.width), dweight = nans<T>(call.classes * call.width);
  auto dbias = nans<T>(has_bias ? call.classes : 0);
  call.h = h.data();
  call.weight = weight.data();
  call.bias = pointer(bias);
  call.counted = counted.data();
  call.targets = targets.data();
  call.dh = dh.data();
  call.dweight = dweight.data();
  call.dbias = pointer(dbias);
  append(out, std::vector<T>{static_cast<T>(cross_entropy(table, call, threads))});
  for (const auto* values : {&dh, &dweight, &dbias}) append(out, *values);
}

template <class T>
void run_case(Reader& in, Bytes& out, const KernelTable& table, int threads) {
  if (in.integer() == 0)
    run_network<T>(in, out, table, threads);
  else
    run_output_layer<T>(in, out, table, threads);
}

Bytes run_cases(const Bytes& file, const KernelTable& table, int threads) {
  Reader in(file);
  Bytes out;
  for (int64_t left = in.integer(); left > 0; --left) {
    if (in.integer() == 0)  // DTYPES of harness.py
      run_case<float>(in, out, table, threads);
    else
      run_case<double>(in, out, table, threads);
  }
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) fail("usage: native_check ISA THREADS CALLERS CASES RESULTS");
  const KernelTable& table = *find_isa(argv[1]).table;
  const int threads = std::atoi(argv[2]);
  set_processors(threads);
  std::ifstream cases(argv[4], std::ios::binary);
  const Bytes file((std::istreambuf_iterator<char>(cases)), {});

  std::vector<Bytes> results(static_cast<std::size_t>(std::atoi(argv[3])));
  std::vector<std::thread> callers;
  for (Bytes& result : results) callers.emplace_back([&] { result = run_cases(file, table, threads); });
  for (std::thread& caller : callers) caller.join();
  for (const Bytes& result : results)
    if (result != results.front()) fail("callers at the same time got different results");

  std::ofstream(argv[5], std::ios::binary)
      .write(results.front().data(), static_cast<std::streamsize>(results.front().size()));
}
