// One engine's state: threads, KV cache, working memory; and the step over all layers.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <vector>

#include "group.h"
#include "memory.h"
#include "model.h"
#include "ops.h"
#include "pool.h"

namespace moorage {

// As moorage_runtime.kernels.library has it.
struct SessionOptions {
    int32_t threads;
    int32_t rows;     // of the largest step
    int32_t samples;  // rows of the largest step whose logits are wanted
    int32_t blocks;   // of the KV cache
    int32_t layers;   // computed; fewer than the model has only to measure memory
    int32_t bf16_cache;
    int64_t spin_ns;
    const char* kernels;  // see ops_for
    // Where several ranks compute one model, this one its part of the heads, of the MLP and of the vocabulary; else
    // nullptr. It outlives the session.
    Group* group;
    const int32_t* vocabulary;  // rank r has the tokens from vocabulary[r] on, below vocabulary[r + 1]
};

// As moorage_runtime.kernels.library has it. A chunk is `counts[i]` consecutive tokens of a sequence from position
// `starts[i]` on; its block numbers begin at tables[offsets[i]]. The chunks' tokens follow one another in `tokens`.
struct StepInput {
    int32_t chunks, rows, samples;
    const int32_t* tokens;
    const int32_t* starts;
    const int32_t* counts;
    const int32_t* offsets;
    const int32_t* tables;
    const int32_t* sample_rows;  // ascending
    const uint8_t* drawn;        // of each sample: whether its logits are read; all are where there is no group
    int32_t* best;               // of each sample: the most likely token, the lowest among equals; -1: no finite number
};

struct Counters {
    int64_t products_ns, attention_ns, rest_ns, waited_ns, steps, rows;
};

class Session {
   public:
    Session(const Model& model, const SessionOptions& options);

    // nullptr, or why the step is refused; nothing is computed then. Or which rank is missing: the group is broken.
    const char* step(const StepInput& input);
    // Of the last step's samples, one row of the whole vocabulary each; of other ranks than the first only their part.
    const float* logits() const { return logits_.get(); }
    const Counters& counters() const { return counters_; }
    const char* ops_name() const { return ops_.name; }

   private:
    struct Product {
        const Linear* linear;
        float* out;
        int stride;
        bool add;
    };

    const char* problem(const StepInput& input) const;
    void lay_out(const StepInput& input);
    void lay_out_chunk(const StepInput& input, int chunk, int first_row);
    void embed(const StepInput& input);
    void compute_layer(int index, const StepInput& input, bool last);
    void attend(const Layer& layer, int index);
    void embed_token(int token, int row);
    void exchange();
    void add_product(const Linear& linear);
    bool normed(int row, const std::vector<float>& weight);
    void add_parts(int row, float* x) const;
    void keep_samples(const StepInput& input);
    void finish(const StepInput& input);
    int32_t best(int row) const;
    void gather_best(const StepInput& input);
    void gather_logits(const StepInput& input);
    void place_logits(const int* rows, size_t count, int widest);

    template <class Body>
    void for_rows(const Body& body);
    template <class Body>
    void prepared(std::initializer_list<const Linear*> readers, const float* x, int stride, int k, const Body& body);
    void prepare(unsigned kinds, const float* x, int stride, int k, int begin, int end);
    template <class After>
    void multiply(std::initializer_list<Product> products, const After& after);
    void multiply(std::initializer_list<Product> products);
    int multiply_tile(std::initializer_list<Product> products, int begin, int end, int tile);
    void spend(int64_t Counters::*where);

    const Model& model_;
    const Ops& ops_;
    const SessionOptions options_;
    const Heads heads_;
    Group* const group_;
    const std::vector<int32_t> vocabulary_;  // first tokens of the ranks, and the end
    const int logits_stride_;
    const char* problem_ = nullptr;  // of the group
    Pool pool_;
    int rows_ = 0;  // of what is computed now
    Pages<uint8_t> cache_;
    size_t layer_bytes_;
    Pages<float> x_, normed_, q_, k_, v_, attended_, gate_, up_, cosines_, sines_, logits_, highest_, scratch_;
    Pages<uint8_t> operands_[3];
    std::vector<uint8_t> finite_;
    std::vector<int> positions_;
    std::vector<AttentionTask> attention_;
    std::vector<WriteTask> writes_;
    size_t scratch_size_;
    int queries_;  // rows of an attention task at most
    int64_t mark_ = 0;
    Counters counters_{};
};

}  // namespace moorage
