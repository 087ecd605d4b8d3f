#include "ops_sets.h"
#include "rows.inl"

namespace moorage {

const Ops kAvx512F32 = ops_named<F32Cache>("avx512");
const Ops kAvx512Bf16 = ops_named<Bf16Cache>("avx512");

}  // namespace moorage
