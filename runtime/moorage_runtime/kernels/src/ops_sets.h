// The sets of operations that are compiled, one per instruction set and type of cache.
#pragma once

#include "ops.h"

namespace moorage {

extern const Ops kScalarF32, kScalarBf16;
#if defined(__x86_64__)
extern const Ops kAvx2F32, kAvx2Bf16;
extern const Ops kAvx512F32, kAvx512Bf16;
extern const Ops kAmxBf16;
#endif

}  // namespace moorage
