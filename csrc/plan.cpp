#include "plan.hpp"

#include <algorithm>
#include <cmath>

#include "kernels.hpp"
#include "ranges.hpp"

namespace rnnkern {
namespace {

// Rough figures of a current processor: they decide splits, not results. Longer vectors come with wider caches.
constexpr double kFlops = 10e9;            // multiply-adds per lane, core and second, times two
constexpr double kCacheBandwidth = 3e9;    // bytes of weights a second from a core's own cache, per byte of a vector
constexpr double kSharedBandwidth = 50e9;  // and from the one that cores share
constexpr double kOwnCache = 800e3;        // bytes of weights that stay in a core's own cache
constexpr double kActivation = 8e-9;       // seconds of a vector
constexpr double kLatency = 1e-9;          // seconds of a multiply-add that waits for the one before
#ifdef RNNKERN_EAGER_TEAMS                 // for tests: small problems are split, too
constexpr double kTeam = 0, kBarriers = 0;
#else
constexpr double kTeam = 4e-6;  // what a team costs at all
constexpr double kBarriers = 1;
#endif
constexpr double kHanded = 600;  // bytes that another core has just written, read in the time of a barrier

double seconds(const Problem& p, const Plan& plan, double barrier) {
  const double lanes = static_cast<double>(p.lanes), flops = kFlops * lanes;
  const double own_cache = std::max(kCacheBandwidth * lanes * p.element_size, kSharedBandwidth);
  const int64_t panels = divide_up(p.hidden_size, p.lanes);
  const double units = static_cast<double>(divide_up(panels, plan.units) * p.lanes);
  const double rows = static_cast<double>(p.total_steps) / std::max<int64_t>(p.steps, 1) / plan.rows;
  const double own_rows = std::max(rows, 1.0);
  const double recurrent = units * p.gates * p.output_size, input = units * p.gates * p.input_size;
  const double bytes = recurrent * p.element_size;
  const double near = std::min(bytes, kOwnCache);  // weights are read by turns
  const double read = near / own_cache + (bytes - near) / kSharedBandwidth;
  const double passes = p.backward ? 3 : 1;
  const double products = 2 * own_rows / flops;  // seconds per weight
  // The gradient of h sums over the gates, the gates over h; a group of panels at a time.
  const int64_t depth = p.backward ? p.gates * p.hidden_size : p.output_size;
  const int64_t columns = p.backward ? divide_up(p.output_size, p.lanes) : panels;
  const int64_t groups = divide_up(divide_up(columns, plan.units), kGroupPanels[p.backward ? 1 : p.gates]);
  const double chain = static_cast<double>(depth * groups) * kLatency;
  const double step = std::max({read, products * recurrent, chain}) + (passes - 1) * products * recurrent +
                      passes * products * input + (p.gates + 1) * units * own_rows * kActivation / lanes +
                      barrier * std::ceil(std::log2(plan.units));
  // Threads that share units pack for each other, those that share sequences hand each other h, or the gradients of the
  // gates, at every step.
  const double packed = p.live ? units * p.gates * (p.input_size + p.output_size) * (1 - 1.0 / plan.rows) : 0;
  const double handed = own_rows * static_cast<double>(depth) * (1 - 1.0 / plan.units);
  const double transfer = p.element_size * barrier / kHanded;
  const double turns = static_cast<double>(p.directions) / plan.directions;
  return turns * (packed * transfer + static_cast<double>(p.steps) * (step + handed * transfer)) +
         (plan.threads() > 1 ? kTeam : 0);
}

}  // namespace

double seconds_alone(const Problem& p) { return seconds(p, Plan{1, 1, 1}, 0); }

Plan make_plan(const Problem& p, int threads, double barrier) {
  const int64_t panels = divide_up(p.hidden_size, p.lanes);
  Plan best{1, 1, 1};
  double best_seconds = seconds_alone(p);
  if (threads == 1 || best_seconds <= kTeam) return best;
  for (int directions = 1; directions <= p.directions; ++directions) {
    const int each = threads / directions;
    for (int rows = 1; rows <= each && rows <= std::max<int64_t>(p.batch, 1); ++rows) {
      const int units = static_cast<int>(std::min<int64_t>(each / rows, panels));
      const Plan plan{directions, rows, units};
      const double estimate = seconds(p, plan, kBarriers * barrier);
      if (estimate < best_seconds) {
        best = plan;
        best_seconds = estimate;
      }
    }
  }
  return best;
}

int64_t block_steps(const Problem& p) {
  const int64_t row_bytes = p.gates * p.hidden_size * p.element_size;
  const int64_t rows = p.backward ? std::clamp<int64_t>((int64_t{1} << 20) / row_bytes, 256, 1024)
                                  : std::clamp<int64_t>((int64_t{512} << 10) / row_bytes, 48, 1024);
  return std::clamp<int64_t>(rows / std::max<int64_t>(p.batch, 1), 1, std::max<int64_t>(p.steps, 1));
}

}  // namespace rnnkern
