// Reading and changing the residual stream while llama.cpp evaluates a batch.
//
// llama.cpp names the output of block `il` "l_out-<il>", and "result_norm" that of the last norm, which
// the output matrix is applied to. It calls the context's eval callback for every node. The hook asks for
// the nodes it wants, changes rows, and copies or pools rows.
#pragma once

#include "interventions.hpp"
#include "llama_api.hpp"

#include <cstdint>
#include <exception>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace steerx {

// Layer number of the input of block 0, which can be read and not changed.
constexpr int32_t input_layer = -1;

// Adds `weight` times row `row` of the batch to slot `slot` of the output.
struct Pick {
    int32_t row;
    int32_t slot;
    float weight;
};

// What is read at one kind of place in the network.
struct Reading {
    std::string hook_point;      // "l_out", "attn_out", "ffn_out": what llama.cpp names the tensor
    std::vector<int32_t> layers; // (layer,) 0-based blocks, strictly increasing; may begin with input_layer and
                                 // end with n_layer, the last norm
    std::vector<Pick> picks;     // rows to read, in any order; none: only run up to the last layer
    std::span<float> values;     // (layer, slot, n_embd), added to
};

// What is changed: rows of the residual stream after some blocks.
struct Writing {
    InterventionPtr intervention;
    std::vector<int32_t> layers; // (layer,) 0-based blocks
    std::vector<int32_t> rows;   // rows of the batch
};

// What to do during one decode call of at most one micro-batch.
struct PassPlan {
    std::vector<int32_t> tokens;     // (n_tokens,) the batch, to check the order llama.cpp computes in
    std::vector<int32_t> output_row; // (n_tokens,) place among the batch's outputs, or -1
    std::vector<Writing> writings;   // applied in this order, before anything is read
    std::vector<Reading> readings;
    // No logits are needed: end the pass after the last layer read. Of each later part of a graph that
    // runs on several backends the first node is computed nevertheless, from whatever its inputs hold.
    bool stop_after_last_layer = false;
};

class ResidualHooks {
  public:
    ResidualHooks(const LlamaApi &api, int32_t n_layer, int32_t n_embd);

    ResidualHooks(const ResidualHooks &) = delete;
    ResidualHooks &operator=(const ResidualHooks &) = delete;

    // What `llama_context_params.cb_eval` takes, with the object itself as its user data.
    static bool callback(ggml_tensor *tensor, bool ask, void *self) noexcept;

    // Follows `plan` until finish() or cancel(). Throws std::invalid_argument for a plan that does
    // not fit the model.
    void arm(PassPlan plan);

    // Ends the pass. Rethrows what went wrong inside the callback; throws std::runtime_error when a
    // layer of the plan never came by, or the order of the tokens could not be checked.
    void finish();

    // Ends the pass without a complaint, after a decode call that failed by itself.
    void cancel() noexcept;

  private:
    // Everything the plan wants of one node of the graph.
    struct Task {
        int32_t layer = 0;
        std::vector<std::pair<size_t, size_t>> reads; // (reading, place of the layer in it)
        std::vector<size_t> writes;                   // places in the plan's writings
        bool seen = false;
    };

    void check_layers(std::span<const int32_t> layers, int32_t least, int32_t most) const;
    void check_rows(const PassPlan &plan) const;
    void add_task(const std::string &hook_point, int32_t layer, std::pair<size_t, size_t> read);
    Task *task_of(const ggml_tensor *tensor);
    void check_order(const ggml_tensor *tensor);

    // Where the rows of the batch lie in a tensor: all of them in their order, or the outputs only.
    struct Rows {
        std::span<const int32_t> output_row; // empty where the tensor has all rows

        // -1 for a row that the tensor does not have.
        int32_t place(int32_t row) const { return output_row.empty() ? row : output_row[static_cast<size_t>(row)]; }
    };

    void run(ggml_tensor *tensor, Task &task);
    // Throws std::runtime_error for a tensor that is no matrix of such rows.
    Rows rows_of(const ggml_tensor *tensor, int32_t layer) const;
    // First and last place that the task wants; last < first if it wants none.
    std::pair<int32_t, int32_t> range_of(const ggml_tensor *tensor, const Task &task, const Rows &rows) const;
    bool change(const Task &task, const Rows &rows); // whether anything was
    std::span<float> fetched(int32_t place);
    template <typename RowOf> void pool(const Reading &reading, size_t place, RowOf row_of) const;
    void pool_input() const;

    LlamaApi api_;
    int32_t n_layer_;
    int32_t n_embd_;

    bool armed_ = false;
    bool stopped_ = false;
    bool order_checked_ = true;
    PassPlan plan_{};
    std::unordered_map<std::string, Task> tasks_; // by the name of the node
    size_t n_unread_ = 0;                         // nodes of blocks still to be read
    std::vector<float> rows_;                     // (row, n_embd) fetched from the tensor at hand
    int32_t first_row_ = 0;                       // the place in it that rows_ begins with
    std::vector<float> input_rows_;               // (row, n_embd) what goes into block 0, as last seen
    int32_t input_first_ = 0;                     // the row of the batch that input_rows_ begins with
    std::exception_ptr exception_;                // the first error inside the callback
};

} // namespace steerx
