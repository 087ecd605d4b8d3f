// Ranks of several machines: each has a stream to each other one, and sends its slot to all of them at once. One hop, so
// that small exchanges, which are nearly all, take one latency.
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "group.h"
#include "memory.h"
#include "spin.h"

namespace moorage {
namespace {

constexpr int kLookMs = 20;  // between two looks after the others

// Before the numbers: ranks that are not at the same place must not take each other's.
struct Header {
    uint64_t turn, count;
};

// One direction of a stream within one exchange: the header, then the slot.
struct Transfer {
    Header header;
    char* data;
    size_t size;      // bytes in all
    size_t done = 0;  // of them

    bool complete() const { return done == size; }

    // What is left, as the two pieces of memory that it lies in.
    msghdr left(iovec (&pieces)[2]) {
        const size_t of_header = std::min(done, sizeof(Header)), of_data = done - of_header;
        pieces[0] = {reinterpret_cast<char*>(&header) + of_header, sizeof(Header) - of_header};
        pieces[1] = {data + of_data, size - sizeof(Header) - of_data};
        msghdr message{};
        message.msg_iov = pieces;
        message.msg_iovlen = 2;
        return message;
    }
};

struct Peer {
    int socket;
    Transfer out, in;
};

enum class Moved { kNothing, kSomething, kEnd };

Moved moved(ssize_t bytes, Transfer& transfer) {
    if (bytes > 0) {
        transfer.done += static_cast<size_t>(bytes);
        return Moved::kSomething;
    }
    return bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR) ? Moved::kNothing : Moved::kEnd;
}

Moved send_some(Peer& peer) {
    if (peer.out.complete()) return Moved::kNothing;
    iovec pieces[2];
    const msghdr message = peer.out.left(pieces);
    return moved(sendmsg(peer.socket, &message, MSG_NOSIGNAL), peer.out);
}

Moved receive_some(Peer& peer) {
    if (peer.in.complete()) return Moved::kNothing;
    iovec pieces[2];
    msghdr message = peer.in.left(pieces);
    // The next exchange's bytes are left where they are: these pieces end where this one does.
    return moved(recvmsg(peer.socket, &message, 0), peer.in);
}

class SocketGroup final : public Group {
   public:
    explicit SocketGroup(const GroupOptions& options) : Group(options), slots_(slots_size()) {
        for (int rank = 0; rank < ranks_; ++rank) {
            const int socket = options.sockets[rank];
            if (rank != rank_) fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK);
            peers_.push_back({socket, {}, {}});
        }
    }

   private:
    float* slots() const override { return slots_.get(); }

    const char* transfer(size_t count, bool to_first) override {
        const size_t size = sizeof(Header) + count * sizeof(float);
        for (int rank = 0; rank < ranks_; ++rank) {
            const bool sends = rank != rank_ && (!to_first || rank == 0);
            const bool receives = rank != rank_ && (!to_first || rank_ == 0);
            Peer& peer = peers_[static_cast<size_t>(rank)];
            peer.out = {{turn_, count}, bytes_of(rank_), sends ? size : 0};
            peer.in = {{}, bytes_of(rank), receives ? size : 0};
        }
        while (!complete()) {
            bool moving = false;
            if (const char* problem = move(moving)) return problem;
            if (!moving && !wait()) return watch_.problem();
        }
        return nullptr;
    }

    char* bytes_of(int rank) const { return reinterpret_cast<char*>(slot(turn_, rank)); }

    bool complete() const {
        return std::all_of(peers_.begin(), peers_.end(), [](const Peer& p) { return p.out.complete() && p.in.complete(); });
    }

    const char* move(bool& moving) {
        for (Peer& peer : peers_) {
            for (const Moved result : {send_some(peer), receive_some(peer)}) {
                if (result == Moved::kEnd) return watch_.lost(rank_of(peer), "is gone");
                moving |= result == Moved::kSomething;
            }
            if (!in_step(peer)) return watch_.lost(rank_of(peer), "computes another step");
        }
        return nullptr;
    }

    // Until a stream can go on; false when a rank is not waited for any longer.
    bool wait() {
        std::vector<pollfd> watched;
        int late = rank_;
        for (const Peer& peer : peers_) {
            const int events = (peer.out.complete() ? 0 : POLLOUT) | (peer.in.complete() ? 0 : POLLIN);
            if (events == 0) continue;
            watched.push_back({peer.socket, static_cast<short>(events), 0});
            late = rank_of(peer);
        }
        const auto ready = [&](int milliseconds) { return poll(watched.data(), watched.size(), milliseconds) > 0; };
        if (spin(spin_ns_, [&] { return ready(0); })) return true;
        return ready(kLookMs) || watch_.patient(late);
    }

    bool in_step(const Peer& peer) const {
        const Header &theirs = peer.in.header, &ours = peers_[static_cast<size_t>(rank_)].out.header;
        return peer.in.done < sizeof(Header) || (theirs.turn == ours.turn && theirs.count == ours.count);
    }

    int rank_of(const Peer& peer) const { return static_cast<int>(&peer - peers_.data()); }

    Pages<float> slots_;
    std::vector<Peer> peers_;
};

}  // namespace

std::unique_ptr<Group> group_over_sockets(const GroupOptions& options) { return std::make_unique<SocketGroup>(options); }

}  // namespace moorage
