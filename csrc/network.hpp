// What forward and backward of a network share: a plan, a work space and a team.
#pragma once

#include "layer.hpp"
#include "threads.hpp"
#include "workspace.hpp"

namespace rnnkern {

// Runs body(thread, team, all) on a team for the problem, `all` being a barrier of its threads. Before that
// lay_out(arena, plan, places) has laid out the work space for the plan that is wanted; begin(plan, team) is told,
// once, the plan for the team that there really is; meanwhile() is called while it gathers, as by run_team.
template <class LayOut, class Begin, class Meanwhile, class Body>
void run_planned(const Problem& problem, int threads, LayOut&& lay_out, Begin&& begin, Meanwhile&& meanwhile,
                 Body&& body) {
  const int most = worth_waking(threads, seconds_alone(problem));
  const double barrier = most > 1 ? barrier_seconds_or_try() : 0;
  const Plan wanted = make_plan(problem, most, barrier);
  const Barrier::Places places = Barrier::places(barrier_places(wanted));
  const Workspace workspace = rnnkern::lay_out([&](Arena& arena) { lay_out(arena, wanted, places.get()); });
  run_team(
      wanted.threads(),
      [&](int team) { begin(team == wanted.threads() ? wanted : make_plan(problem, team, barrier), team); }, meanwhile,
      body);
}

}  // namespace rnnkern
