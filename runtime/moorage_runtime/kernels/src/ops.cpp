#include "ops.h"

#include <cstring>

#include "isa.h"
#include "ops_sets.h"

namespace moorage {
namespace {

struct Level {
    const char* name;  // as MOORAGE_KERNELS spells it
    bool available;
    const Ops& f32;
    const Ops& bf16;
};

}  // namespace

const Ops& ops_for(bool bf16_cache, const char* at_most) {
    const Features& has = features();
    const Level levels[] = {
#if defined(__x86_64__)
        {"amx", has.amx, kAvx512F32, kAmxBf16},
        {"avx512", has.avx512, kAvx512F32, kAvx512Bf16},
        {"avxvnni", has.avx2, kAvx2F32, kAvx2Bf16},
        {"avx2", has.avx2, kAvx2F32, kAvx2Bf16},
#endif
    };
    bool allowed = at_most == nullptr || *at_most == '\0';
    for (const Level& level : levels) {
        allowed = allowed || std::strcmp(level.name, at_most) == 0;
        if (allowed && level.available) return bf16_cache ? level.bf16 : level.f32;
    }
    (void)has;
    return bf16_cache ? kScalarBf16 : kScalarF32;
}

size_t attention_scratch(const Heads& heads, int queries) {
    constexpr size_t kLanes = 16, kHighestAndPosition = 2;
    const size_t rows = static_cast<size_t>(queries) * static_cast<size_t>(heads.group());
    const size_t dim = static_cast<size_t>(heads.dim);
    return dim + rows * (2 * dim + kLanes + kHighestAndPosition);
}

}  // namespace moorage
