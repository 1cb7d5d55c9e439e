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

template <class T, template <class, class> class C, class F>
struct Entry {
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
using Cells = List<Entry<T, Rnn, Plain<T, Kind::tanh>>,                        //
                   Entry<T, Rnn, Plain<T, Kind::relu>>,                        //
                   Entry<T, Rnn, Plain<T, Kind::identity>>,                    //
                   Entry<T, Rnn, General<T>>,                                  //
                   Entry<T, Lstm, Gated<T, Coupling::none, false>>,            //
                   Entry<T, Lstm, Gated<T, Coupling::none, true>>,             //
                   Entry<T, Lstm, Gated<T, Coupling::input, false>>,           //
                   Entry<T, Lstm, Gated<T, Coupling::forget, false>>,          //
                   Entry<T, Lstm, General<T>>,                                 //
                   Entry<T, GruResetAfter, Gated<T, Coupling::none, false>>,   //
                   Entry<T, GruResetAfter, General<T>>,                        //
                   Entry<T, GruResetBefore, Gated<T, Coupling::none, false>>,  //
                   Entry<T, GruResetBefore, General<T>>,                       //
                   Entry<T, Jordan, Plain<T, Kind::tanh>>,                     //
                   Entry<T, Jordan, General<T>>>;

}  // namespace
}  // namespace rnnkern
