// The cells of CellId, in its order: the only list of them.
#pragma once

#include "gru.hpp"
#include "jordan.hpp"
#include "lstm.hpp"
#include "rnn.hpp"

namespace rnnkern {
namespace {

template <class... Cell>
struct List {};

template <class T, CellId cell, template <class, class> class C, class F>
struct Entry {
  static constexpr CellId id = cell;
  using Element = T;
  using Nonlinearity = F;
  using Cell = C<T, F>;
};

using Kind = ActivationKind;
template <class T, Kind... kinds>
using Plain = Usual<T, Coupling::none, false, kinds...>;
template <class T, Coupling coupling, bool peephole>
using Gated = Usual<T, coupling, peephole, Kind::sigmoid, Kind::tanh, Kind::tanh>;

template <class T>
using Cells = List<Entry<T, CellId::rnn_tanh, Rnn, Plain<T, Kind::tanh>>,                                //
                   Entry<T, CellId::rnn_relu, Rnn, Plain<T, Kind::relu>>,                                //
                   Entry<T, CellId::rnn_identity, Rnn, Plain<T, Kind::identity>>,                        //
                   Entry<T, CellId::rnn_general, Rnn, General<T>>,                                       //
                   Entry<T, CellId::lstm, Lstm, Gated<T, Coupling::none, false>>,                        //
                   Entry<T, CellId::lstm_peephole, Lstm, Gated<T, Coupling::none, true>>,                //
                   Entry<T, CellId::lstm_coupled_input, Lstm, Gated<T, Coupling::input, false>>,         //
                   Entry<T, CellId::lstm_coupled_forget, Lstm, Gated<T, Coupling::forget, false>>,       //
                   Entry<T, CellId::lstm_general, Lstm, General<T>>,                                     //
                   Entry<T, CellId::gru_reset_after, GruResetAfter, Gated<T, Coupling::none, false>>,    //
                   Entry<T, CellId::gru_reset_after_general, GruResetAfter, General<T>>,                 //
                   Entry<T, CellId::gru_reset_before, GruResetBefore, Gated<T, Coupling::none, false>>,  //
                   Entry<T, CellId::gru_reset_before_general, GruResetBefore, General<T>>,               //
                   Entry<T, CellId::jordan, Jordan, Plain<T, Kind::tanh>>,                               //
                   Entry<T, CellId::jordan_general, Jordan, General<T>>>;

}  // namespace
}  // namespace rnnkern
