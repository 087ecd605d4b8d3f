#include "group.h"

#include <poll.h>
#include <time.h>

#include <algorithm>

namespace moorage {
namespace {

// The longest time between two looks that counts as waiting.
constexpr int64_t kLongestLookNs = 200'000'000;

int64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

bool has_ended(int socket) {
    pollfd watched = {socket, POLLRDHUP, 0};
    return poll(&watched, 1, 0) > 0 && (watched.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

}  // namespace

Watch::Watch(const GroupOptions& options)
    : timeout_ns_(options.timeout_ns), controls_(options.controls, options.controls + options.ranks) {}

void Watch::start() {
    waited_ns_ = 0;
    looked_ = now_ns();
}

bool Watch::patient(int rank) {
    for (size_t each = 0; each < controls_.size(); ++each) {
        if (controls_[each] < 0 || !has_ended(controls_[each])) continue;
        lost(static_cast<int>(each), "is gone");
        return false;
    }
    const int64_t now = now_ns();
    waited_ns_ += std::min(now - looked_, kLongestLookNs);
    looked_ = now;
    if (waited_ns_ < timeout_ns_) return true;
    lost(rank, "did not come to an exchange in time");
    return false;
}

const char* Watch::lost(int rank, const char* how) {
    problem_ = "rank " + std::to_string(rank) + " " + how;
    return problem_.c_str();
}

Group::Group(const GroupOptions& options)
    : rank_(options.rank),
      ranks_(options.ranks),
      capacity_((static_cast<size_t>(options.capacity) + 15) / 16 * 16),  // slots begin at cache lines
      spin_ns_(options.spin_ns),
      watch_(options) {}

std::unique_ptr<Group> Group::make(const GroupOptions& options) {
    return options.memory >= 0 ? group_over_memory(options) : group_over_sockets(options);
}

const char* Group::pass(size_t count, bool to_first) {
    if (count > capacity_) return "an exchange is larger than the group was made for";
    watch_.start();
    const char* problem = transfer(count, to_first);
    ++turn_;
    return problem;
}

}  // namespace moorage
