// For every machine: loops that the compiler turns into SSE2 or NEON.
#include "ops_sets.h"
#include "rows.inl"

namespace moorage {

const Ops kScalarF32 = ops_named<F32Cache>("scalar");
const Ops kScalarBf16 = ops_named<Bf16Cache>("scalar");

}  // namespace moorage
