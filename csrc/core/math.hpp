// exp, sigmoid, tanh and the other activations on vectors, with the error bounds of docs/design.md. They assume that
// denormals are flushed to zero, as they are inside the loop. NaN in is NaN out: every clamp lets NaN through.
#pragma once

#include "vector.hpp"

namespace rnnkern {
namespace {

// exp(r) - 1 = r + r^2 p(r) on |r| <= ln(2) / 2, p a near-minimax (Chebyshev) fit: relative error 5e-10 and 5e-19.
template <class T>
struct Exp;
template <>
struct Exp<float> {
  static constexpr int mantissa_bits = 23, bias = 127;
  static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;  // n * ln2_high is exact
  static constexpr float round = 12582912.0f;                                 // 1.5 * 2^23
  static constexpr float polynomial[] = {0.5f,           0.166666667f,   4.1666465e-2f,
                                         8.33331093e-3f, 1.39336496e-3f, 1.98909908e-4f};
  static constexpr float lowest = -87.33654f, highest = 88.3f;   // exponents that a single scale can hold
  static constexpr float vanishes = -104.0f, overflows = 89.0f;  // beyond: 0 and infinity
  static constexpr float tanh_is_one = 20.0f;                    // 2|x| from where tanh rounds to 1
};
template <>
struct Exp<double> {
  static constexpr int mantissa_bits = 52, bias = 1023;
  static constexpr double ln2_high = 6.93147180369123816490e-1, ln2_low = 1.90821492927058770002e-10;
  static constexpr double round = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double polynomial[] = {0.5,
                                          0.16666666666666670991,
                                          0.041666666666666669755,
                                          0.0083333333333261351258,
                                          0.0013888888888883748305,
                                          0.00019841269874820625271,
                                          0.000024801587325547741216,
                                          2.755725540020642443e-6,
                                          2.7557273643110295328e-7,
                                          2.5105217004720745164e-8,
                                          2.0914686968086877233e-9};
  static constexpr double lowest = -708.39, highest = 709.0;
  static constexpr double vanishes = -746.0, overflows = 710.0;
  static constexpr double tanh_is_one = 40.0;
};

// Comparisons are false for NaN, so NaN keeps its value in all of these. An instruction set may have instructions for
// them: functions of these names for its types.
template <class V>
RNNKERN_INLINE V at_most(V x, V bound) {
  return x > bound ? bound : x;
}
template <class V>
RNNKERN_INLINE V at_least(V x, V bound) {
  return x < bound ? bound : x;
}

template <class T>
RNNKERN_INLINE Vector<T> magnitude(Vector<T> x) {
  return (Vector<T>)((IntegerVector<T>)x & ~(IntegerVector<T>)broadcast<T>(T(-0.0)));
}
template <class T>
RNNKERN_INLINE Vector<T> copy_sign(Vector<T> x, Vector<T> sign) {
  const IntegerVector<T> mask = (IntegerVector<T>)broadcast<T>(T(-0.0));
  return (Vector<T>)(((IntegerVector<T>)x & ~mask) | ((IntegerVector<T>)sign & mask));
}

// x = n ln(2) + r; n is kept in the low bits of a float.
template <class T>
struct Reduced {
  Vector<T> expm1;    // exp(r) - 1
  Vector<T> shifted;  // n + round
};

template <class T>
RNNKERN_INLINE Reduced<T> reduce(Vector<T> x) {
  using E = Exp<T>;
  const Vector<T> shifted = multiply_add(x, broadcast<T>(T(1.44269504088896340736)), broadcast<T>(E::round));
  const Vector<T> n = shifted - broadcast<T>(E::round);
  Vector<T> r = multiply_add(n, broadcast<T>(-E::ln2_high), x);
  r = multiply_add(n, broadcast<T>(-E::ln2_low), r);
  // By pairs of coefficients, which do not wait for each other.
  const auto c = [](int i) { return broadcast<T>(E::polynomial[i]); };
  constexpr int degree = sizeof(E::polynomial) / sizeof(T) - 1, last = degree % 2 ? degree - 1 : degree;
  const Vector<T> square = r * r;
  Vector<T> p = c(last);
  if (degree % 2) p = multiply_add(c(degree), r, p);
#pragma GCC unroll 16
  for (int i = last - 2; i >= 0; i -= 2) p = multiply_add(p, square, multiply_add(c(i + 1), r, c(i)));
  return {multiply_add(square, p, r), shifted};
}

// 2^n for n in the range of normal exponents.
template <class T>
RNNKERN_INLINE Vector<T> power_of_two(IntegerVector<T> n) {
  return (Vector<T>)((typename Native<T>::bits)(n + Exp<T>::bias) << Exp<T>::mantissa_bits);
}
template <class T>
RNNKERN_INLINE IntegerVector<T> exponent(Vector<T> shifted) {
  return (IntegerVector<T>)shifted - (IntegerVector<T>)broadcast<T>(Exp<T>::round);
}

// exp over the whole range.
template <class T>
RNNKERN_INLINE Vector<T> exp(Vector<T> x) {
  x = at_least(at_most(x, broadcast<T>(Exp<T>::overflows)), broadcast<T>(Exp<T>::vanishes));
  const Reduced<T> e = reduce<T>(x);
  const IntegerVector<T> n = exponent<T>(e.shifted), half = n >> 1;
  return (e.expm1 + T(1)) * power_of_two<T>(half) * power_of_two<T>(n - half);
}

// 1 / (1 + exp(-x)).
template <class T>
RNNKERN_INLINE Vector<T> sigmoid(Vector<T> x) {
  const Vector<T> y = at_least(at_most(-x, broadcast<T>(Exp<T>::highest)), broadcast<T>(Exp<T>::lowest));
  const Reduced<T> e = reduce<T>(y);
  const Vector<T> scale = power_of_two<T>(exponent<T>(e.shifted));
  return T(1) / (multiply_add(scale, e.expm1, scale) + T(1));
}

// exp(x) - 1 without cancellation, for exponents that a single scale can hold.
template <class T>
RNNKERN_INLINE Vector<T> expm1(Vector<T> x) {
  const Reduced<T> e = reduce<T>(x);
  const Vector<T> scale = power_of_two<T>(exponent<T>(e.shifted));
  return multiply_add(scale, e.expm1, scale - T(1));
}

// u / (u + 2) with u = exp(2|x|) - 1.
template <class T>
RNNKERN_INLINE Vector<T> tanh(Vector<T> x) {
  const Vector<T> a = magnitude<T>(x);
  const Vector<T> u = expm1<T>(at_most(a + a, broadcast<T>(Exp<T>::tanh_is_one)));
  return copy_sign<T>(u / (u + T(2)), x);
}

// log(1 + u) = 2 atanh(u / (2 + u)) for 0 <= u <= 1.
template <class T>
RNNKERN_INLINE Vector<T> log1p_unit(Vector<T> u) {
  constexpr int terms = sizeof(T) == 4 ? 8 : 17;
  const Vector<T> s = u / (u + T(2)), s2 = s * s;
  Vector<T> sum = broadcast<T>(T(1) / T(2 * terms + 1));
  for (int i = terms - 1; i >= 0; --i) sum = multiply_add(sum, s2, broadcast<T>(T(1) / T(2 * i + 1)));
  return T(2) * s * sum;
}

// One of ONNX's activations, chosen at run time.
template <class T>
RNNKERN_INLINE Vector<T> activate(const Activation& f, Vector<T> x) {
  const Vector<T> alpha = broadcast<T>(T(f.alpha)), beta = broadcast<T>(T(f.beta)), zero{}, one = zero + T(1);
  switch (f.kind) {
    case ActivationKind::affine:
      return alpha * x + beta;
    case ActivationKind::elu:
      return x < zero ? alpha * expm1<T>(at_least(at_most(x, zero), broadcast<T>(Exp<T>::lowest))) : x;
    case ActivationKind::hard_sigmoid:
      return at_least(at_most(alpha * x + beta, one), zero);
    case ActivationKind::identity:
      return x;
    case ActivationKind::leaky_relu:
      return x < zero ? alpha * x : x;
    case ActivationKind::relu:
      return at_least(x, zero);
    case ActivationKind::scaled_tanh:
      return alpha * tanh<T>(beta * x);
    case ActivationKind::sigmoid:
      return sigmoid<T>(x);
    case ActivationKind::softplus:
      return at_least(x, zero) + log1p_unit<T>(exp<T>(-magnitude<T>(x)));
    case ActivationKind::softsign:
      return x / (one + magnitude<T>(x));
    case ActivationKind::tanh:
      return tanh<T>(x);
    case ActivationKind::thresholded_relu:
      return x <= alpha ? zero : x;
  }
  __builtin_unreachable();
}

// A derivative, which gradients are multiplied with. Where a function is held (below the kink of a ReLU, say) nothing
// passes, not even infinity times zero.
template <class T>
struct Slope {
  Vector<T> factor{};
  IntegerVector<T> held{};  // ones in the lanes where it is so

  Slope() = default;
  RNNKERN_INLINE Slope(Vector<T> f, IntegerVector<T> h = IntegerVector<T>{}) : factor(f), held(h) {}
};
template <class T>
RNNKERN_INLINE Vector<T> operator*(Vector<T> gradient, const Slope<T>& slope) {
  return slope.held ? Vector<T>{} : gradient * slope.factor;
}
template <class T>
RNNKERN_INLINE Vector<T> multiply_add(Vector<T> gradient, const Slope<T>& slope, Vector<T> sum) {
  const Vector<T> more = multiply_add(gradient, slope.factor, sum);  // its own type on NEON
  return slope.held ? sum : more;
}

// The derivative of f at x, where y = activate(f, x).
template <class T>
RNNKERN_INLINE Slope<T> derivative(const Activation& f, Vector<T> x, Vector<T> y) {
  const Vector<T> alpha = broadcast<T>(T(f.alpha)), beta = broadcast<T>(T(f.beta)), zero{}, one = zero + T(1);
  switch (f.kind) {
    case ActivationKind::affine:
      return alpha;
    case ActivationKind::elu:
      return x <= zero ? alpha * exp<T>(x) : one;
    case ActivationKind::hard_sigmoid: {
      const Vector<T> linear = alpha * x + beta;
      return {alpha, ~((linear > zero) & (linear < one))};
    }
    case ActivationKind::identity:
      return one;
    case ActivationKind::leaky_relu:
      return x > zero ? one : alpha;
    case ActivationKind::relu:
      return {one, x <= zero};
    case ActivationKind::scaled_tanh: {
      const Vector<T> t = tanh<T>(beta * x);
      return alpha * beta * (one - t * t);
    }
    case ActivationKind::sigmoid:
      return y * (one - y);
    case ActivationKind::softplus:
      return sigmoid<T>(x);
    case ActivationKind::softsign: {
      const Vector<T> d = one + magnitude<T>(x);
      return one / (d * d);
    }
    case ActivationKind::tanh:
      return one - y * y;
    case ActivationKind::thresholded_relu:
      return {one, x <= alpha};
  }
  __builtin_unreachable();
}

}  // namespace
}  // namespace rnnkern
