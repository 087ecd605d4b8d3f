#include "ops_sets.h"
#include "rows.inl"

namespace moorage {

const Ops kAvx2F32 = ops_named<F32Cache>("avx2");
const Ops kAvx2Bf16 = ops_named<Bf16Cache>("avx2");

}  // namespace moorage
