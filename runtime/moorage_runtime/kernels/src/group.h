// The ranks that compute one model together: what each works out of a step's rows goes to the others, inside of the step.
//
// Every rank has a slot in which it leaves its numbers, and after an exchange reads those of all. Who adds them up does so
// in the order of the ranks, so each rank comes to the same bits, whoever was early or late. There are two sets of slots,
// used in turns: a rank that has passed an exchange may fill its next slot while others still read the last one, because
// nobody comes to the next exchange before it has read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace moorage {

// As moorage_runtime.kernels.group has it.
struct GroupOptions {
    int32_t rank, ranks;
    int64_t capacity;         // numbers in a slot
    int64_t timeout_ns;       // how long an exchange waits for the others
    int64_t spin_ns;          // how long it does so without sleeping
    int32_t memory;           // file descriptor of memory that all ranks map; -1: they talk over `sockets`
    const int32_t* sockets;   // for each rank a connected stream; -1 for this one
    const int32_t* controls;  // for each rank a stream that ends when the rank does; -1: not watched
};

// Notices that a rank is gone or late.
class Watch {
   public:
    explicit Watch(const GroupOptions& options);

    // From now on the others are waited for.
    void start();
    // Called again and again while waiting for a rank; false, with `problem()`: it will not come. Time for which this
    // process was itself stopped does not count: the others may have been, too.
    bool patient(int rank);
    const char* problem() const { return problem_.c_str(); }
    const char* lost(int rank, const char* how);

   private:
    const int64_t timeout_ns_;
    std::vector<int32_t> controls_;
    int64_t waited_ns_ = 0, looked_ = 0;
    std::string problem_;
};

class Group {
   public:
    // Throws std::exception where there is no memory.
    static std::unique_ptr<Group> make(const GroupOptions& options);
    virtual ~Group() = default;
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;

    int rank() const { return rank_; }
    int ranks() const { return ranks_; }
    size_t capacity() const { return capacity_; }

    // Where this rank leaves numbers for the next exchange.
    float* mine() const { return slot(turn_, rank_); }
    // What a rank left for the last exchange.
    const float* of(int rank) const { return slot(turn_ - 1, rank); }

    // The first `count` numbers of every slot, the same count everywhere, to all ranks; or to rank 0 alone. nullptr, or
    // why a rank is missing: the group is broken then.
    const char* exchange(size_t count) { return pass(count, false); }
    const char* gather(size_t count) { return pass(count, true); }

   protected:
    explicit Group(const GroupOptions& options);

    // The slots of both turns are `ranks` times `capacity` numbers each.
    virtual float* slots() const = 0;
    virtual const char* transfer(size_t count, bool to_first) = 0;
    float* slot(uint64_t turn, int rank) const {
        return slots() + (turn % 2 * static_cast<size_t>(ranks_) + static_cast<size_t>(rank)) * capacity_;
    }
    size_t slots_size() const { return 2 * static_cast<size_t>(ranks_) * capacity_; }

    const int rank_, ranks_;
    const size_t capacity_;
    const int64_t spin_ns_;
    uint64_t turn_ = 0;
    Watch watch_;

   private:
    const char* pass(size_t count, bool to_first);
};

// The two ways; see group_memory.cpp and group_sockets.cpp.
std::unique_ptr<Group> group_over_memory(const GroupOptions& options);
std::unique_ptr<Group> group_over_sockets(const GroupOptions& options);

}  // namespace moorage
