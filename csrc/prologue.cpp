#include "prologue.hpp"

#include <algorithm>

namespace rnnkern {

template <class T>
void Prologue<T>::lay_out(Arena& arena, const Plan& wanted) {
  const Layer<T>& first = layers_[0];
  if (!weights_ && wanted.threads() == 1) return;  // nobody to share with
  while (pieces_.size() < layers_.size() * first.directions) pieces_.emplace_back(wanted.threads());
  for (int64_t d = 0; d < first.directions; ++d) offsets_[d] = arena.take<int64_t>(first.block_rows());
  if (!weights_ || wanted.rows > 1 || first.blocks() > 1 || first.direction[0].panels.plain_input) return;
  for (const Layer<T>& layer : layers_) once_size_ = std::max(once_size_, most_panels() * layer.shape.input_panel());
  packed_once_ = arena.take<T>(wanted.threads() * once_size_);
}

template <class T>
void Prologue<T>::begin() {
  const Plan& plan = layers_[0].plan;
  const bool ahead = !pieces_.empty() && plan.rows == 1 && layers_[0].blocks() > 0;
  for (Layer<T>& layer : layers_)
    for (int64_t d = 0; d < layer.directions; ++d) layer.direction[d].input_made = ahead && d < plan.directions;
  if (needed())
    for (Portions& pieces : pieces_)
      pieces.deal(layers_[0].shape.panels(layers_[0].shape.units), crew(), most_panels());
  enter(0);
}

template <class T>
void Prologue<T>::enter(std::size_t l) {
  const Layer<T>& layer = layers_[l];
  const Batch& batch = *layer.batch;
  for (int64_t d = 0; d < layer.directions; ++d) {
    if (!layer.direction[d].input_made) continue;
    int64_t* offset = offsets_[d];
    for (int64_t s = 0; s < std::min(layer.block_steps, batch.steps()); ++s)
      for (int64_t row = 0; row < batch.active(s); ++row)
        *offset++ = origin_of(layer.x, batch, row, d == 1) + (d == 1 ? -s : s) * layer.x.stride_t;
  }
}

template <class T>
bool Prologue<T>::work(std::size_t l, int thread) {
  if (!needed()) return false;
  const Layer<T>& layer = layers_[l];
  for (int64_t i = 0; i < layer.directions; ++i) {
    const int64_t d = (thread / crew() + i) % layer.directions;
    const std::size_t part = l * layer.directions + d;
    if (const auto piece = pieces_[part].take(thread % crew())) {
      work(layer, d, *piece, weights_ ? weights_ + part : nullptr,
           packed_once_ ? packed_once_ + thread * once_size_ : nullptr);
      return true;
    }
  }
  return false;
}

template <class T>
void Prologue<T>::work(const Layer<T>& layer, int64_t d, Portions::Piece piece, const Weights<const T>* weights,
                       T* packed_once) const {
  const Direction<T>& direction = layer.direction[d];
  const Batch& batch = *layer.batch;
  const Range panels = piece.range;
  Panels<T> input = direction.panels.input_at(layer.shape, panels.first);
  if (packed_once && direction.input_made) input = grouped(packed_once, panels.size(), layer.shape.info().gates);
  if (weights) direction.panels.pack(layer.shape, *weights, panels, input);
  if (!direction.input_made) return;
  Rows<T> out = layer.input_of(direction, 0, piece.share);
  out.base += (panels.first - piece.share.first) * layer.shape.input_width();
  multiply_input(layer, direction, batch.first(std::min(layer.block_steps, batch.steps())), offsets_[d], panels, input,
                 out);
}

template class Prologue<float>;
template class Prologue<double>;

}  // namespace rnnkern
