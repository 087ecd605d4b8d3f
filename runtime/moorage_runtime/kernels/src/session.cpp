#include "session.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <ctime>
#include <stdexcept>
#include <type_traits>

namespace moorage {
namespace {

// Of what is done row by row: operands keep 16 rows beside each other, and threads that write to the same lines wait for
// each other (2 threads, 64 rows: 12.4 ms of a step with 4 rows to a task, 3.2 with 16).
constexpr int kRowsPerTask = 16;
constexpr int kAttentionRows = 64;     // queries times heads that one task of attention takes through the cache
constexpr int kTasksPerThread = 8;     // of products, where rows are few: enough that threads end together
constexpr int kFewRows = 16;
constexpr int kLanes = 16;  // rows are padded to a multiple of it

int64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * int64_t{1000000000} + now.tv_nsec;
}

size_t area(int rows, int columns) { return static_cast<size_t>(rows) * static_cast<size_t>(columns); }

int divided(int value, int by) { return (value + by - 1) / by; }

unsigned bit(Operand kind) { return 1u << static_cast<unsigned>(kind); }

std::vector<int32_t> vocabulary_of(const Shape& shape, const SessionOptions& options) {
    if (options.group == nullptr) return {0, shape.vocab};
    return {options.vocabulary, options.vocabulary + options.group->ranks() + 1};
}

// Numbers that a rank hands to the others at once: the rows of a step, or one row of logits, or the best of all samples.
size_t slot_size(const Shape& shape, const std::vector<int32_t>& vocabulary, const SessionOptions& options) {
    return std::max({area(options.rows, padded(shape.hidden)), area(1, vocabulary[1]), area(2, options.samples)});
}

}  // namespace

Session::Session(const Model& model, const SessionOptions& options)
    : model_(model),
      ops_(ops_for(options.bf16_cache != 0, options.kernels)),
      options_(options),
      heads_{model.shape.heads, model.shape.kv_heads, model.shape.head_dim, model.shape.eps},
      group_(options.group),
      vocabulary_(vocabulary_of(model.shape, options)),
      // The first rank's part is where the whole row begins.
      logits_stride_(group_ != nullptr && group_->rank() != 0 ? model.shape.vocab : vocabulary_.back()),
      pool_(options.threads, options.spin_ns),
      layer_bytes_(static_cast<size_t>(options.blocks) * static_cast<size_t>(heads_.kv_heads) * heads_.block_size() *
                   (options.bf16_cache != 0 ? 2 : 4)),
      finite_(static_cast<size_t>(options.rows)),
      queries_(std::max(1, kAttentionRows / heads_.group())) {
    const Shape& shape = model.shape;
    if (group_ != nullptr && group_->capacity() < slot_size(shape, vocabulary_, options))
        throw std::length_error("the group's slots are smaller than a step of this session");
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
    logits_ = Pages<float>(area(options.samples, logits_stride_));
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
    if (problem_ != nullptr) return problem_;
    counters_.steps += 1;
    counters_.rows += input.rows;
    return nullptr;
}

const char* Session::problem(const StepInput& input) const {
    if (input.rows < 1 || input.rows > options_.rows) return "the step has more rows than the session was made for";
    if (input.samples < 0 || input.samples > options_.samples)
        return "the step samples more rows than the session was made for";
    for (int row = 0; row < input.rows; ++row)
        if (input.tokens[row] < 0 || input.tokens[row] >= vocabulary_.back()) return "a token is not in the vocabulary";
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
    const int half = heads_.half();
    for_rows([&](int begin, int end) {
        for (int row = begin; row < end; ++row) {
            embed_token(input.tokens[row], row);
            for (int i = 0; i < half; ++i) {
                const float angle = static_cast<float>(positions_[static_cast<size_t>(row)]) *
                                    model_.inverse_frequencies[static_cast<size_t>(i)];
                cosines_.get()[area(row, half) + static_cast<size_t>(i)] = std::cos(angle);
                sines_.get()[area(row, half) + static_cast<size_t>(i)] = std::sin(angle);
            }
        }
    });
    exchange();
}

// In a group the token's row is the sum of all ranks' rows, of which one is not zero.
void Session::embed_token(int token, int row) {
    const int hidden = padded(model_.shape.hidden);
    float* x = x_.get() + area(row, hidden);
    if (group_ == nullptr) return matrix_row(*model_.embedding().matrix, token, x);
    float* mine = group_->mine() + area(row, hidden);
    std::memset(x, 0, sizeof(float) * area(1, hidden));
    std::memset(mine, 0, sizeof(float) * area(1, hidden));
    const int first = vocabulary_[static_cast<size_t>(group_->rank())];
    if (token >= first && token < first + model_.shape.vocab) matrix_row(*model_.embedding().matrix, token - first, mine);
}

// What all ranks left in their slots is due to be added to x, by `normed`.
void Session::exchange() {
    if (group_ == nullptr) return;
    spend(&Counters::rest_ns);
    if (problem_ == nullptr) problem_ = group_->exchange(area(rows_, padded(model_.shape.hidden)));
    spend(&Counters::waited_ns);
}

// x += the product; in a group each rank has a part of the sum over the product's inputs.
void Session::add_product(const Linear& linear) {
    const int hidden = padded(model_.shape.hidden);
    multiply({{&linear, group_ == nullptr ? x_.get() : group_->mine(), hidden, group_ == nullptr}});
    exchange();
}

// Norms a row of x, after adding what the ranks have worked out since the last time. Whether it is finite.
bool Session::normed(int row, const std::vector<float>& weight) {
    const int hidden = padded(model_.shape.hidden);
    float* x = x_.get() + area(row, hidden);
    if (group_ != nullptr) add_parts(row, x);
    return ops_.rms_norm(x, weight.data(), model_.shape.hidden, hidden, model_.shape.eps, normed_.get() + area(row, hidden));
}

void Session::add_parts(int row, float* x) const {
    const size_t at = area(row, padded(model_.shape.hidden));
    const int hidden = model_.shape.hidden, whole = hidden / kLanes * kLanes;
    const auto add = [&](int begin, auto lanes) {
        float sum[kLanes];
        std::memcpy(sum, group_->of(0) + at + begin, sizeof(float) * static_cast<size_t>(lanes));
        for (int rank = 1; rank < group_->ranks(); ++rank) {
            const float* part = group_->of(rank) + at + begin;
            for (int lane = 0; lane < lanes; ++lane) sum[lane] += part[lane];
        }
        for (int lane = 0; lane < lanes; ++lane) x[begin + lane] += sum[lane];
    };
    for (int begin = 0; begin < whole; begin += kLanes) add(begin, std::integral_constant<int, kLanes>());
    if (whole < hidden) add(whole, hidden - whole);
}

void Session::compute_layer(int index, const StepInput& input, bool last) {
    const Shape& shape = model_.shape;
    const Layer& layer = model_.layer(index);
    const Linear* linear = layer.linear;
    const int hidden = padded(shape.hidden), intermediate = padded(shape.intermediate);
    const int q = heads_.heads * heads_.dim, kv = heads_.kv_heads * heads_.dim;
    const auto norm = [&](const std::vector<float>& weight) {
        return [&](int begin, int end) {
            for (int row = begin; row < end; ++row) normed(row, weight);
        };
    };
    prepared({linear + kQ, linear + kK, linear + kV}, normed_.get(), hidden, shape.hidden,
             norm(layer.vector[kAttentionNorm]));
    multiply({{linear + kQ, q_.get(), q, false}, {linear + kK, k_.get(), kv, false}, {linear + kV, v_.get(), kv, false}});
    attend(layer, index);
    if (last) keep_samples(input);
    if (rows_ == 0) return;
    prepared({linear + kOutput}, attended_.get(), q, q, [](int, int) {});
    add_product(linear[kOutput]);
    prepared({linear + kGate, linear + kUp}, normed_.get(), hidden, shape.hidden, norm(layer.vector[kMlpNorm]));
    multiply({{linear + kGate, gate_.get(), intermediate, false}, {linear + kUp, up_.get(), intermediate, false}});
    prepared({linear + kDown}, normed_.get(), intermediate, shape.intermediate, [&](int begin, int end) {
        for (int row = begin; row < end; ++row)
            ops_.silu_times(gate_.get() + area(row, intermediate), up_.get() + area(row, intermediate), intermediate,
                            normed_.get() + area(row, intermediate));
    });
    add_product(linear[kDown]);
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
        for (int row = begin; row < end; ++row) finite_[static_cast<size_t>(row)] = normed(row, model_.final_norm());
    });
    const int tiles = matrix_tiles(*head.matrix), width = matrix_tile_width(*head.matrix);
    multiply({{&head, logits_.get(), logits_stride_, false}}, [&](int begin, int end, int tile) {
        const int columns = std::min(width, shape.vocab - tile * width);
        for (int row = begin; row < end; ++row)
            highest_.get()[area(row, tiles) + static_cast<size_t>(tile)] =
                ops_.highest(logits_.get() + area(row, logits_stride_) + tile * width, columns);
    });
    for_rows([&](int begin, int end) {
        for (int row = begin; row < end; ++row) input.best[row] = best(row);
    });
    spend(&Counters::rest_ns);
    if (group_ == nullptr) return;
    gather_best(input);
    gather_logits(input);
    spend(&Counters::waited_ns);
}

// The lowest token with the highest logit of a row; -1 where that is no finite number.
int32_t Session::best(int row) const {
    const Matrix& head = *model_.head().matrix;
    const int tiles = matrix_tiles(head), width = matrix_tile_width(head), vocab = model_.shape.vocab;
    const float* highest = highest_.get() + area(row, tiles);
    const int tile = static_cast<int>(std::max_element(highest, highest + tiles) - highest);
    if (!finite_[static_cast<size_t>(row)] || !std::isfinite(highest[tile])) return -1;
    const float* logits = logits_.get() + area(row, logits_stride_);
    const float* end = logits + std::min(vocab, (tile + 1) * width);
    const float* found = std::find(logits + tile * width, end, highest[tile]);
    return found == end ? -1 : static_cast<int32_t>(found - logits);
}

// The most likely token of all ranks' parts, for the first rank: of equal ones that of the lowest rank, whose tokens are
// lower. A part that has no finite number spoils the row.
void Session::gather_best(const StepInput& input) {
    struct Best {
        float logit;
        int32_t token;
    };
    static_assert(sizeof(Best) == 2 * sizeof(float));
    for (int row = 0; row < rows_; ++row) {
        const int32_t token = input.best[row];
        const Best best = {token < 0 ? 0 : logits_.get()[area(row, logits_stride_) + static_cast<size_t>(token)], token};
        std::memcpy(group_->mine() + 2 * row, &best, sizeof(best));
    }
    if (problem_ == nullptr) problem_ = group_->gather(2 * static_cast<size_t>(rows_));
    if (group_->rank() != 0) return;
    for (int row = 0; row < rows_; ++row) {
        Best found = {0, -1};
        for (int rank = 0; rank < group_->ranks(); ++rank) {
            Best part;
            std::memcpy(&part, group_->of(rank) + 2 * row, sizeof(part));
            if (part.token < 0) {
                found.token = -1;
                break;
            }
            if (rank == 0 || part.logit > found.logit)
                found = {part.logit, part.token + vocabulary_[static_cast<size_t>(rank)]};
        }
        input.best[row] = found.token;
    }
}

// The other ranks' logits of the rows that are drawn from, to the first rank, as many rows at a time as fit a slot.
void Session::gather_logits(const StepInput& input) {
    std::vector<int> rows;
    for (int row = 0; row < rows_; ++row)
        if (input.drawn[row]) rows.push_back(row);
    const int widest = vocabulary_[1] - vocabulary_[0];  // parts differ in size, and the first is none of the smaller
    const size_t at_once = group_->capacity() / static_cast<size_t>(widest);
    for (size_t first = 0; first < rows.size() && problem_ == nullptr; first += at_once) {
        const size_t count = std::min(at_once, rows.size() - first);
        for (size_t i = 0; i < count && group_->rank() != 0; ++i)
            std::memcpy(group_->mine() + i * static_cast<size_t>(widest),
                        logits_.get() + area(rows[first + i], logits_stride_),
                        sizeof(float) * static_cast<size_t>(model_.shape.vocab));
        problem_ = group_->gather(count * static_cast<size_t>(widest));
        if (group_->rank() == 0) place_logits(rows.data() + first, count, widest);
    }
}

void Session::place_logits(const int* rows, size_t count, int widest) {
    for (int rank = 1; rank < group_->ranks(); ++rank) {
        const int begin = vocabulary_[static_cast<size_t>(rank)], end = vocabulary_[static_cast<size_t>(rank) + 1];
        for (size_t i = 0; i < count; ++i)
            std::memcpy(logits_.get() + area(rows[i], logits_stride_) + begin,
                        group_->of(rank) + i * static_cast<size_t>(widest),
                        sizeof(float) * static_cast<size_t>(end - begin));
    }
}

}  // namespace moorage
