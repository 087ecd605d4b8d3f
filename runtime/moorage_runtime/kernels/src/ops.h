// What a step computes besides products: norms, activation, rotation, attention. Compiled for several instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace moorage {

constexpr int kBlockTokens = 16;  // positions in a block of the KV cache (moorage_runtime.engine.blocks)


// Shape of attention.
struct Heads {
    int heads, kv_heads, dim;
    float eps;  // of the norm of single heads

    int group() const { return heads / kv_heads; }
    int half() const { return dim / 2; }
    // Keys and values of one block and KV head, in elements.
    size_t block_size() const { return size_t{2} * kBlockTokens * static_cast<size_t>(dim); }
};

// What attention of one layer reads and writes. Row r of the step is at `pointer + r * stride`.
struct AttentionLayer {
    Heads heads;
    const float* q;        // rows x heads * dim, as the product left them
    const float* k;        // rows x kv_heads * dim
    const float* v;        // rows x kv_heads * dim
    const float* cosines;  // rows x half
    const float* sines;    // rows x half
    const float* q_norm;   // dim, or nullptr
    const float* k_norm;   // dim, or nullptr
    void* cache;           // the layer's blocks: [block][kv head][keys, values]
    float* out;            // rows x heads * dim
};

// Consecutive tokens of one sequence and one KV head: the unit of work of attention.
struct AttentionTask {
    int first_row;
    int rows;
    int position;  // of the first row
    int kv_head;
    const int32_t* table;  // block numbers of the sequence
    bool writes;           // keys and values of these rows are not in the cache yet
};

// Consecutive tokens of one sequence whose keys and values go into one block, all KV heads.
struct WriteTask {
    int first_row;
    int rows;
    int position;
    int32_t block;
};

struct Ops {
    const char* name;
    // out = x / rms(x) * weight over n numbers, which are padded with zeros to `padded`, a multiple of 16. False where x
    // is not finite.
    bool (*rms_norm)(const float* x, const float* weight, int n, int padded, float eps, float* out);
    // out = gate / (1 + exp(-gate)) * up over a multiple of 16 numbers.
    void (*silu_times)(const float* gate, const float* up, int padded, float* out);
    float (*highest)(const float* values, int n);
    void (*write)(const AttentionLayer& layer, const WriteTask& task, float* scratch);
    // `next`, which may be nullptr, is a task that this thread is likely to be given then.
    void (*attend)(const AttentionLayer& layer, const AttentionTask& task, const AttentionTask* next, float* scratch);
};

// Floats of scratch memory that `attend` needs for tasks of up to `queries` rows.
size_t attention_scratch(const Heads& heads, int queries);

// The fastest that this machine has, for a cache of bfloat16 or of float32. `at_most` lowers it, as MOORAGE_KERNELS does;
// nullptr or "" does not.
const Ops& ops_for(bool bf16_cache, const char* at_most);

}  // namespace moorage
