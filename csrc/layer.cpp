#include "layer.hpp"

namespace rnnkern {

bool assign(const Plan& plan, int64_t directions, int thread, Barrier::Place* places, Interruption* interruption,
            Worker* worker) {
  if (thread >= plan.threads()) return false;
  const int crew = plan.rows * plan.units, direction = thread / crew, rank = thread % crew;
  worker->first_direction = plan.directions > 1 ? direction : 0;
  worker->last_direction = plan.directions > 1 ? direction + 1 : directions;
  worker->group = rank / plan.units;
  worker->groups = plan.rows;
  worker->unit = rank % plan.units;
  worker->units = plan.units;
  worker->interruption = interruption;
  if (plan.threads() == 1) return true;  // waits for nobody
  worker->group_barrier = Barrier(places + thread - worker->unit);
  worker->crew_barrier = Barrier(places + plan.threads() + thread - rank);
  return true;
}

// Groups take neighbouring rows where all are equally long, else every groups-th one: that balances the work.
OwnRows::OwnRows(const Batch& batch, const Worker& worker, int64_t* lists)
    : batch_(&batch), group_(worker.group), groups_(worker.groups) {
  const Range range = share(batch.size(), groups_, group_);
  size_ = batch.ragged() ? divide_up(batch.size() - group_, groups_) : range.size();
  int64_t* sequences = lists + batch.size();
  for (int64_t i = 0; i < size_; ++i) {
    lists[i] = batch.ragged() ? group_ + i * groups_ : range.first + i;
    sequences[i] = batch.sequence(lists[i]);
  }
  rows_ = lists;
  sequences_ = sequences;
}

int64_t OwnRows::active(int64_t step) const {
  if (!batch_->ragged()) return size_;
  const int64_t active = batch_->active(step);
  return active <= group_ ? 0 : divide_up(active - group_, groups_);
}

}  // namespace rnnkern
