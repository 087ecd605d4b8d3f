#include "session.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>

namespace moorage {
namespace {

// Of what is done row by row: operands keep 16 rows beside each other, and threads that write to the same lines wait for
// each other (2 threads, 64 rows: 12.4 ms of a step with 4 rows to a task, 3.2 with 16).
constexpr int kRowsPerTask = 16;
constexpr int kAttentionRows = 64;     // queries times heads that one task of attention takes through the cache
constexpr int kTasksPerThread = 8;     // of products, where rows are few: enough that threads end together
constexpr int kFewRows = 16;

int64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

size_t area(int rows, int columns) { return static_cast<size_t>(rows) * static_cast<size_t>(columns); }

int divided(int value, int by) { return (value + by - 1) / by; }

unsigned bit(Operand kind) { return 1u << static_cast<unsigned>(kind); }

}  // namespace

Session::Session(const Model& model, const SessionOptions& options)
    : model_(model),
      ops_(ops_for(options.bf16_cache != 0, options.kernels)),
      options_(options),
      heads_{model.shape.heads, model.shape.kv_heads, model.shape.head_dim, model.shape.eps},
      pool_(options.threads, options.spin_ns),
      layer_bytes_(static_cast<size_t>(options.blocks) * static_cast<size_t>(heads_.kv_heads) * heads_.block_size() *
                   (options.bf16_cache != 0 ? 2 : 4)),
      finite_(static_cast<size_t>(options.rows)),
      queries_(std::max(1, kAttentionRows / heads_.group())) {
    const Shape& shape = model.shape;
    const int rows = options.rows, q = heads_.heads * heads_.dim, kv = heads_.kv_heads * heads_.dim;
    const int hidden = padded(shape.hidden), intermediate = padded(shape.intermediate);
    cache_ = Pages<uint8_t>(layer_bytes_ * static_cast<size_t>(options.layers));
    x_ = Pages<float>(area(rows, hidden));
    normed_ = Pages<float>(area(rows, std::max(hidden, intermediate)));
    q_ = Pages<float>(area(rows, q));
    k_ = Pages<float>(area(rows, kv));
    v_ = Pages<float>(area(rows, kv));
    attended_ = Pages<float>(area(rows, q));
    gate_ = Pages<float>(area(rows, intermediate));
    up_ = Pages<float>(area(rows, intermediate));
    cosines_ = Pages<float>(area(rows, heads_.half()));
    sines_ = Pages<float>(area(rows, heads_.half()));
    logits_ = Pages<float>(area(options.samples, shape.vocab));
    highest_ = Pages<float>(area(options.samples, matrix_tiles(*model.head().matrix)));
    scratch_size_ = static_cast<size_t>(padded(static_cast<int>(attention_scratch(heads_, queries_))));
    scratch_ = Pages<float>(scratch_size_ * static_cast<size_t>(options.threads));
    const int widest = std::max({shape.hidden, shape.intermediate, q});
    for (int kind = 0; kind < 3; ++kind)
        operands_[kind] = Pages<uint8_t>(operand_bytes(static_cast<Operand>(kind), rows, padded(padded(widest) + 16)));
}

const char* Session::step(const StepInput& input) {
    if (const char* refusal = problem(input)) return refusal;
    mark_ = now_ns();
    rows_ = input.rows;
    lay_out(input);
    embed(input);
    for (int layer = 0; layer < options_.layers; ++layer) compute_layer(layer, input, layer + 1 == options_.layers);
    if (input.samples > 0) finish(input);
    counters_.steps += 1;
    counters_.rows += input.rows;
    return nullptr;
}

const char* Session::problem(const StepInput& input) const {
    if (input.rows < 1 || input.rows > options_.rows) return "the step has more rows than the session was made for";
    if (input.samples < 0 || input.samples > options_.samples)
        return "the step samples more rows than the session was made for";
    for (int row = 0; row < input.rows; ++row)
        if (input.tokens[row] < 0 || input.tokens[row] >= model_.shape.vocab) return "a token is not in the vocabulary";
    int row = 0;
    for (int chunk = 0; chunk < input.chunks; ++chunk) {
        if (input.counts[chunk] < 1 || input.starts[chunk] < 0) return "a chunk has no tokens";
        const int last = input.starts[chunk] + input.counts[chunk] - 1;
        for (int i = 0; i <= last / kBlockTokens; ++i) {
            const int32_t block = input.tables[input.offsets[chunk] + i];
            if (block < 0 || block >= options_.blocks) return "a block is not in the cache";
        }
        row += input.counts[chunk];
    }
    if (row != input.rows) return "the chunks do not cover the rows";
    for (int i = 0; i < input.samples; ++i) {
        const int before = i == 0 ? -1 : input.sample_rows[i - 1];
        if (input.sample_rows[i] <= before || input.sample_rows[i] >= input.rows) return "rows to sample are not in order";
    }
    return nullptr;
}

void Session::lay_out(const StepInput& input) {
    attention_.clear();
    writes_.clear();
    positions_.clear();
    int row = 0;
    for (int chunk = 0; chunk < input.chunks; ++chunk) {
        lay_out_chunk(input, chunk, row);
        row += input.counts[chunk];
    }
    // Long ones first, so that threads end together.
    std::stable_sort(attention_.begin(), attention_.end(), [](const AttentionTask& a, const AttentionTask& b) {
        return int64_t{a.position} * a.rows > int64_t{b.position} * b.rows;
    });
}

void Session::lay_out_chunk(const StepInput& input, int chunk, int first_row) {
    const int start = input.starts[chunk], count = input.counts[chunk];
    const int32_t* table = input.tables + input.offsets[chunk];
    for (int i = 0; i < count; ++i) positions_.push_back(start + i);
    const bool single = count == 1;  // then whoever attends can write, too
    for (int i = 0; !single && i < count;) {
        const int position = start + i;
        const int rows = std::min(count - i, kBlockTokens - position % kBlockTokens);
        writes_.push_back({first_row + i, rows, position, table[position / kBlockTokens]});
        i += rows;
    }
    for (int i = 0; i < count; i += queries_)
        for (int head = 0; head < heads_.kv_heads; ++head)
            attention_.push_back({first_row + i, std::min(queries_, count - i), start + i, head, table, single});
}

// Adds the time since the last call to a counter.
void Session::spend(int64_t Counters::*where) {
    const int64_t now = now_ns();
    counters_.*where += now - mark_;
    mark_ = now;
}

// Calls body(begin, end) for ranges that cover the rows.
template <class Body>
void Session::for_rows(const Body& body) {
    const int size = rows_ < 2 * kRowsPerTask ? rows_ : kRowsPerTask;
    pool_.run(divided(rows_, size), [&](int task, int) { body(task * size, std::min(rows_, (task + 1) * size)); });
}

// Makes the operands that `readers` take of x, whose rows body(begin, end) fills.
template <class Body>
void Session::prepared(std::initializer_list<const Linear*> readers, const float* x, int stride, int k,
                       const Body& body) {
    unsigned kinds = 0;
    for (const Linear* reader : readers) kinds |= bit(matrix_operand(*reader->matrix));
    for_rows([&](int begin, int end) {
        body(begin, end);
        prepare(kinds, x, stride, k, begin, end);
    });
    spend(&Counters::rest_ns);
}

void Session::prepare(unsigned kinds, const float* x, int stride, int k, int begin, int end) {
    for (Operand kind : {Operand::F32, Operand::BF16, Operand::I8}) {
        if ((kinds & bit(kind)) == 0) continue;
        uint8_t* operand = operands_[static_cast<int>(kind)].get();
        operand_prepare(kind, x, static_cast<size_t>(stride), begin, end, k, rows_, operand);
    }
}

void Session::embed(const StepInput& input) {
    const int hidden = padded(model_.shape.hidden), half = heads_.half();
    for_rows([&](int begin, int end) {
        for (int row = begin; row < end; ++row) {
            matrix_row(*model_.embedding().matrix, input.tokens[row], x_.get() + area(row, hidden));
            for (int i = 0; i < half; ++i) {
                const float angle = static_cast<float>(positions_[static_cast<size_t>(row)]) *
                                    model_.inverse_frequencies[static_cast<size_t>(i)];
                cosines_.get()[area(row, half) + static_cast<size_t>(i)] = std::cos(angle);
                sines_.get()[area(row, half) + static_cast<size_t>(i)] = std::sin(angle);
            }
        }
    });
}

void Session::compute_layer(int index, const StepInput& input, bool last) {
    const Shape& shape = model_.shape;
    const Layer& layer = model_.layer(index);
    const Linear* linear = layer.linear;
    const int hidden = padded(shape.hidden), intermediate = padded(shape.intermediate);
    const int q = heads_.heads * heads_.dim, kv = heads_.kv_heads * heads_.dim;
    const auto norm = [&](const std::vector<float>& weight) {
        return [&](int begin, int end) {
            for (int row = begin; row < end; ++row)
                ops_.rms_norm(x_.get() + area(row, hidden), weight.data(), shape.hidden, hidden, shape.eps,
                              normed_.get() + area(row, hidden));
        };
    };
    prepared({linear + kQ, linear + kK, linear + kV}, normed_.get(), hidden, shape.hidden,
             norm(layer.vector[kAttentionNorm]));
    multiply({{linear + kQ, q_.get(), q, false}, {linear + kK, k_.get(), kv, false}, {linear + kV, v_.get(), kv, false}});
    attend(layer, index);
    if (last) keep_samples(input);
    if (rows_ == 0) return;
    prepared({linear + kOutput}, attended_.get(), q, q, [](int, int) {});
    multiply({{linear + kOutput, x_.get(), hidden, true}});
    prepared({linear + kGate, linear + kUp}, normed_.get(), hidden, shape.hidden, norm(layer.vector[kMlpNorm]));
    multiply({{linear + kGate, gate_.get(), intermediate, false}, {linear + kUp, up_.get(), intermediate, false}});
    prepared({linear + kDown}, normed_.get(), intermediate, shape.intermediate, [&](int begin, int end) {
        for (int row = begin; row < end; ++row)
            ops_.silu_times(gate_.get() + area(row, intermediate), up_.get() + area(row, intermediate), intermediate,
                            normed_.get() + area(row, intermediate));
    });
    multiply({{linear + kDown, x_.get(), hidden, true}});
}

void Session::attend(const Layer& layer, int index) {
    const auto vector = [&](int slot) { return layer.vector[slot].empty() ? nullptr : layer.vector[slot].data(); };
    const AttentionLayer what = {heads_,
                                 q_.get(),
                                 k_.get(),
                                 v_.get(),
                                 cosines_.get(),
                                 sines_.get(),
                                 vector(kQueryNorm),
                                 vector(kKeyNorm),
                                 cache_.get() + static_cast<size_t>(index) * layer_bytes_,
                                 attended_.get()};
    const auto scratch = [&](int thread) { return scratch_.get() + static_cast<size_t>(thread) * scratch_size_; };
    pool_.run(static_cast<int>(writes_.size()), [&](int task, int thread) {
        ops_.write(what, writes_[static_cast<size_t>(task)], scratch(thread));
    });
    const int tasks = static_cast<int>(attention_.size());
    pool_.run(tasks, [&](int task, int thread) {
        const AttentionTask* now = attention_.data() + task;
        ops_.attend(what, *now, task + pool_.threads() < tasks ? now + pool_.threads() : nullptr, scratch(thread));
    });
    spend(&Counters::attention_ns);
}

// After the last layer's attention only rows whose logits are wanted go on; they move to the front.
void Session::keep_samples(const StepInput& input) {
    const int hidden = padded(model_.shape.hidden), q = heads_.heads * heads_.dim;
    for (int i = 0; i < input.samples; ++i) {
        const int row = input.sample_rows[i];
        if (row == i) continue;
        std::memcpy(x_.get() + area(i, hidden), x_.get() + area(row, hidden), sizeof(float) * area(1, hidden));
        std::memcpy(attended_.get() + area(i, q), attended_.get() + area(row, q), sizeof(float) * area(1, q));
    }
    rows_ = input.samples;
}

// All tiles of all products over all rows; after(begin, end, tile) follows each.
template <class After>
void Session::multiply(std::initializer_list<Product> products, const After& after) {
    int tiles = 0, range = rows_;
    for (const Product& product : products) {
        tiles += matrix_tiles(*product.linear->matrix);
        range = std::min(range, matrix_row_range(*product.linear->matrix));
    }
    const int ranges = divided(rows_, range);
    const int group = rows_ >= kFewRows ? 1 : std::max(1, tiles / (kTasksPerThread * pool_.threads()));
    const int groups = divided(tiles, group);
    pool_.run(ranges * groups, [&](int task, int) {
        const int begin = task / groups * range, end = std::min(rows_, begin + range);
        const int first = task % groups * group, last = std::min(tiles, first + group);
        for (int tile = first; tile < last; ++tile) after(begin, end, multiply_tile(products, begin, end, tile));
    });
    spend(&Counters::products_ns);
}

void Session::multiply(std::initializer_list<Product> products) {
    multiply(products, [](int, int, int) {});
}

// `tile` counts through all products; the number that it has in its own is returned.
int Session::multiply_tile(std::initializer_list<Product> products, int begin, int end, int tile) {
    const Product* product = products.begin();
    for (; tile >= matrix_tiles(*product->linear->matrix); ++product) tile -= matrix_tiles(*product->linear->matrix);
    const Matrix& matrix = *product->linear->matrix;
    const uint8_t* operand = operands_[static_cast<int>(matrix_operand(matrix))].get();
    matrix_multiply(matrix, operand, rows_, begin, end, tile, product->out, static_cast<size_t>(product->stride),
                    product->linear->bias_or_null(), product->add);
    return tile;
}

// Logits of the rows that are left, and the most likely token of each.
void Session::finish(const StepInput& input) {
    const Shape& shape = model_.shape;
    const Linear& head = model_.head();
    const int hidden = padded(shape.hidden);
    prepared({&head}, normed_.get(), hidden, shape.hidden, [&](int begin, int end) {
        for (int row = begin; row < end; ++row)
            finite_[static_cast<size_t>(row)] =
                ops_.rms_norm(x_.get() + area(row, hidden), model_.final_norm().data(), shape.hidden, hidden, shape.eps,
                              normed_.get() + area(row, hidden));
    });
    const int tiles = matrix_tiles(*head.matrix), width = matrix_tile_width(*head.matrix);
    multiply({{&head, logits_.get(), shape.vocab, false}}, [&](int begin, int end, int tile) {
        const int columns = std::min(width, shape.vocab - tile * width);
        for (int row = begin; row < end; ++row)
            highest_.get()[area(row, tiles) + static_cast<size_t>(tile)] =
                ops_.highest(logits_.get() + area(row, shape.vocab) + tile * width, columns);
    });
    for_rows([&](int begin, int end) {
        for (int row = begin; row < end; ++row) input.best[row] = best(row);
    });
    spend(&Counters::rest_ns);
}

// The lowest token with the highest logit of a row; -1 where that is no finite number.
int32_t Session::best(int row) const {
    const Matrix& head = *model_.head().matrix;
    const int tiles = matrix_tiles(head), width = matrix_tile_width(head), vocab = model_.shape.vocab;
    const float* highest = highest_.get() + area(row, tiles);
    const int tile = static_cast<int>(std::max_element(highest, highest + tiles) - highest);
    if (!finite_[static_cast<size_t>(row)] || !std::isfinite(highest[tile])) return -1;
    const float* logits = logits_.get() + area(row, vocab);
    const float* end = logits + std::min(vocab, (tile + 1) * width);
    const float* found = std::find(logits + tile * width, end, highest[tile]);
    return found == end ? -1 : static_cast<int32_t>(found - logits);
}

}  // namespace moorage
