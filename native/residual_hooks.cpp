#include "residual_hooks.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

namespace steerx {
namespace {

const std::string residual_site = "l_out";
const std::string last_norm_name = "result_norm";

// The names that architectures give to what goes into block 0; where there are several, each is made
// from the one before, and the last to be computed counts.
constexpr std::array<const char *, 3> input_names = {"embd", "inp_scaled", "inpL"};

// Names of all nodes we ever want begin with one of these letters; most nodes' names do not.
bool may_be_wanted(const char *name) {
    return name[0] == 'l' || name[0] == 'a' || name[0] == 'f' || name[0] == 'e' || name[0] == 'i' || name[0] == 'r';
}

std::string node_name(const std::string &hook_point, int32_t layer) { return hook_point + "-" + std::to_string(layer); }

} // namespace

ResidualHooks::ResidualHooks(const LlamaApi &api, int32_t n_layer, int32_t n_embd)
    : api_(api), n_layer_(n_layer), n_embd_(n_embd) {
    if (n_layer < 1 || n_embd < 1) {
        throw std::invalid_argument("n_layer and n_embd must be positive");
    }
}

void ResidualHooks::check_layers(std::span<const int32_t> layers, int32_t least, int32_t most) const {
    if (layers.empty()) {
        throw std::invalid_argument("a reading or writing needs at least one layer");
    }
    for (size_t i = 0; i < layers.size(); ++i) {
        if (layers[i] < least || layers[i] > most || (i > 0 && layers[i] <= layers[i - 1])) {
            throw std::invalid_argument("layers must increase and lie in " + std::to_string(least) + ".." +
                                        std::to_string(most) + ", got " + std::to_string(layers[i]));
        }
    }
}

void ResidualHooks::check_rows(const PassPlan &plan) const {
    const auto n_tokens = static_cast<int32_t>(plan.tokens.size());
    const auto check_row = [&](int32_t row) {
        if (row < 0 || row >= n_tokens) {
            throw std::invalid_argument("row " + std::to_string(row) + " is not in the batch of " +
                                        std::to_string(n_tokens) + " tokens");
        }
    };
    for (const Writing &writing : plan.writings) {
        std::for_each(writing.rows.begin(), writing.rows.end(), check_row);
    }
    for (const Reading &reading : plan.readings) {
        const size_t n_slots = reading.values.size() / (reading.layers.size() * static_cast<size_t>(n_embd_));
        for (const Pick &pick : reading.picks) {
            check_row(pick.row);
            if (pick.slot < 0 || static_cast<size_t>(pick.slot) >= n_slots) {
                throw std::invalid_argument("slot " + std::to_string(pick.slot) + " is not among the " +
                                            std::to_string(n_slots) + " of the output");
            }
        }
    }
}

void ResidualHooks::arm(PassPlan plan) {
    if (armed_) {
        throw std::runtime_error("the hook is already at work on another pass");
    }
    if (plan.output_row.size() != plan.tokens.size()) {
        throw std::invalid_argument("output_row must have one element for each token");
    }
    for (const Writing &writing : plan.writings) {
        check_layers(writing.layers, 0, n_layer_ - 1);
        if (writing.intervention->width() != n_embd_) {
            throw std::invalid_argument("an intervention on rows of " + std::to_string(writing.intervention->width()) +
                                        " does not fit a model with rows of " + std::to_string(n_embd_));
        }
    }
    for (const Reading &reading : plan.readings) {
        check_layers(reading.layers, input_layer, n_layer_);
    }
    check_rows(plan);

    tasks_.clear();
    plan_ = std::move(plan);
    for (size_t i = 0; i < plan_.readings.size(); ++i) {
        const Reading &reading = plan_.readings[i];
        for (size_t place = 0; place < reading.layers.size(); ++place) {
            add_task(reading.hook_point, reading.layers[place], {i, place});
        }
    }
    n_unread_ = static_cast<size_t>(
        std::count_if(tasks_.begin(), tasks_.end(), [](const auto &named) { return named.second.layer >= 0; }));
    for (size_t i = 0; i < plan_.writings.size(); ++i) {
        for (const int32_t layer : plan_.writings[i].layers) {
            Task &task = tasks_[node_name(residual_site, layer)];
            task.layer = layer;
            task.writes.push_back(i);
        }
    }
    exception_ = nullptr;
    stopped_ = false;
    order_checked_ = plan_.tokens.size() < 2;
    armed_ = true;
}

void ResidualHooks::add_task(const std::string &hook_point, int32_t layer, std::pair<size_t, size_t> read) {
    const auto add = [&](const std::string &name) {
        Task &task = tasks_[name];
        task.layer = layer;
        task.reads.push_back(read);
    };
    if (layer == input_layer) {
        std::for_each(input_names.begin(), input_names.end(), add);
    } else {
        add(layer == n_layer_ ? last_norm_name : node_name(hook_point, layer));
    }
}

void ResidualHooks::finish() {
    const std::exception_ptr exception = exception_;
    const bool order_checked = order_checked_;
    const bool stopped = stopped_;
    std::string missing;
    bool input_wanted = false;
    bool input_seen = false;
    for (const auto &[name, task] : tasks_) {
        if (task.layer == input_layer) {
            input_wanted = true;
            input_seen = input_seen || task.seen;
        } else if (!task.seen && !(stopped && task.reads.empty()) && (missing.empty() || name < missing)) {
            missing = name; // except for a change above everything read, where the pass ended
        }
    }
    if (!exception && input_seen) {
        pool_input();
    }
    cancel();
    if (exception) {
        std::rethrow_exception(exception);
    }
    if (input_wanted && !input_seen) {
        missing = "for the input of block 0";
    }
    if (!missing.empty()) {
        throw std::runtime_error("the model's graph has no tensor " + missing);
    }
    if (!order_checked) {
        throw std::runtime_error("the order in which llama.cpp computes the tokens could not be checked");
    }
}

void ResidualHooks::cancel() noexcept {
    armed_ = false;
    order_checked_ = true; // nothing is left to check
    exception_ = nullptr;
    plan_ = PassPlan{};
    tasks_.clear();
}

bool ResidualHooks::callback(ggml_tensor *tensor, bool ask, void *self) noexcept {
    auto &hooks = *static_cast<ResidualHooks *>(self);
    if (!hooks.armed_ || hooks.exception_) {
        return !ask; // nothing is wanted any more; in the second call, true means "go on"
    }
    if (hooks.stopped_) {
        // One graph may run as several splits, each of which starts anew: claim the first node of
        // the next split and refuse to go on after it.
        return ask;
    }
    try {
        if (ask && !hooks.order_checked_) {
            hooks.check_order(tensor);
        }
        Task *task = hooks.task_of(tensor);
        if (ask) {
            return task != nullptr;
        }
        if (task != nullptr) {
            hooks.run(tensor, *task);
            if (task->layer >= 0 && !task->reads.empty()) {
                --hooks.n_unread_;
                hooks.stopped_ = hooks.plan_.stop_after_last_layer && hooks.n_unread_ == 0;
            }
        }
    } catch (...) {
        hooks.exception_ = std::current_exception();
        return !ask; // go on idle: an early exit is not safe for every model
    }
    return !hooks.stopped_;
}

ResidualHooks::Task *ResidualHooks::task_of(const ggml_tensor *tensor) {
    const char *name = api_.ggml_get_name(tensor);
    if (!may_be_wanted(name)) {
        return nullptr;
    }
    const auto found = tasks_.find(name);
    return found == tasks_.end() ? nullptr : &found->second;
}

void ResidualHooks::check_order(const ggml_tensor *tensor) {
    if (std::strcmp(api_.ggml_op_desc(tensor), "GET_ROWS") != 0) {
        return;
    }
    const ggml_tensor *tokens = api_.source_of(tensor, 1);
    if (tokens == nullptr || std::strstr(api_.ggml_get_name(tokens), "inp_tokens") == nullptr) {
        return;
    }
    const size_t n_bytes = plan_.tokens.size() * sizeof(int32_t);
    if (api_.ggml_nbytes(tokens) != n_bytes) {
        throw std::runtime_error("the batch was split: llama.cpp computes " +
                                 std::to_string(api_.ggml_nbytes(tokens) / sizeof(int32_t)) + " of " +
                                 std::to_string(plan_.tokens.size()) + " tokens at a time");
    }
    std::vector<int32_t> order(plan_.tokens.size());
    api_.ggml_backend_tensor_get(tokens, order.data(), 0, n_bytes);
    if (order != plan_.tokens) {
        throw std::runtime_error("llama.cpp computes the tokens of the batch in another order");
    }
    order_checked_ = true;
}

void ResidualHooks::run(ggml_tensor *tensor, Task &task) {
    if (task.seen) {
        throw std::runtime_error(std::string(api_.ggml_get_name(tensor)) + " was computed twice in one pass");
    }
    task.seen = true;
    const Rows rows = rows_of(tensor, task.layer);
    const auto [first, last] = range_of(tensor, task, rows);
    if (last < first) {
        return;
    }
    // One transfer of all rows that matter, whatever is done with them.
    const size_t row_bytes = static_cast<size_t>(n_embd_) * sizeof(float);
    const size_t offset = static_cast<size_t>(first) * row_bytes;
    rows_.resize(static_cast<size_t>(last - first + 1) * static_cast<size_t>(n_embd_));
    first_row_ = first;
    api_.ggml_backend_tensor_get(tensor, rows_.data(), offset, rows_.size() * sizeof(float));
    if (change(task, rows)) {
        api_.ggml_backend_tensor_set(tensor, rows_.data(), offset, rows_.size() * sizeof(float));
    }
    if (task.layer == input_layer) {
        input_rows_ = rows_; // pooled at the end of the pass: a later name may replace them
        input_first_ = first;
        return;
    }
    for (const auto &[i, place] : task.reads) {
        pool(plan_.readings[i], place, [&](const Pick &pick) { return fetched(rows.place(pick.row)).data(); });
    }
}

ResidualHooks::Rows ResidualHooks::rows_of(const ggml_tensor *tensor, int32_t layer) const {
    const int64_t n_elements = api_.ggml_nelements(tensor);
    const int64_t n_rows = api_.ggml_nrows(tensor);
    if (n_elements != n_rows * n_embd_ || api_.ggml_nbytes(tensor) != static_cast<size_t>(n_elements) * sizeof(float)) {
        throw std::runtime_error(std::string(api_.ggml_get_name(tensor)) + " is not a float32 matrix with rows of " +
                                 std::to_string(n_embd_));
    }
    const auto n_tokens = std::ssize(plan_.tokens);
    const auto n_outputs =
        std::count_if(plan_.output_row.begin(), plan_.output_row.end(), [](int32_t row) { return row >= 0; });
    // In the last block llama.cpp keeps, from some point on, only the rows whose output was asked for.
    const bool only_outputs = n_rows != n_tokens;
    if (only_outputs && (n_rows != n_outputs || layer < n_layer_ - 1)) {
        throw std::runtime_error(std::string(api_.ggml_get_name(tensor)) + " has " + std::to_string(n_rows) +
                                 " rows where " + std::to_string(n_tokens) + " were expected");
    }
    return {only_outputs ? std::span<const int32_t>(plan_.output_row) : std::span<const int32_t>()};
}

std::pair<int32_t, int32_t> ResidualHooks::range_of(const ggml_tensor *tensor, const Task &task,
                                                    const Rows &rows) const {
    int32_t first = std::numeric_limits<int32_t>::max();
    int32_t last = -1;
    const auto include = [&](int32_t place) {
        first = std::min(first, place);
        last = std::max(last, place);
    };
    for (const size_t i : task.writes) {
        for (const int32_t row : plan_.writings[i].rows) {
            if (rows.place(row) >= 0) { // a row without output is not computed: nothing to change
                include(rows.place(row));
            }
        }
    }
    for (const auto &[i, place] : task.reads) {
        for (const Pick &pick : plan_.readings[i].picks) {
            if (rows.place(pick.row) < 0) {
                throw std::runtime_error("row " + std::to_string(pick.row) + " of " + api_.ggml_get_name(tensor) +
                                         " is not computed: the last layer has only output rows");
            }
            include(rows.place(pick.row));
        }
    }
    return {first, last};
}

bool ResidualHooks::change(const Task &task, const Rows &rows) {
    bool changed = false;
    for (const size_t i : task.writes) {
        for (const int32_t row : plan_.writings[i].rows) {
            if (rows.place(row) >= 0) {
                plan_.writings[i].intervention->apply(task.layer, fetched(rows.place(row)));
                changed = true;
            }
        }
    }
    return changed;
}

std::span<float> ResidualHooks::fetched(int32_t place) {
    const auto embd = static_cast<size_t>(n_embd_);
    return std::span(rows_).subspan(static_cast<size_t>(place - first_row_) * embd, embd);
}

template <typename RowOf> void ResidualHooks::pool(const Reading &reading, size_t place, RowOf row_of) const {
    const auto embd = static_cast<size_t>(n_embd_);
    const size_t n_slots = reading.values.size() / (reading.layers.size() * embd);
    for (const Pick &pick : reading.picks) {
        const float *row = row_of(pick);
        float *slot = reading.values.data() + (place * n_slots + static_cast<size_t>(pick.slot)) * embd;
        for (size_t k = 0; k < embd; ++k) {
            slot[k] += pick.weight * row[k];
        }
    }
}

void ResidualHooks::pool_input() const {
    const auto embd = static_cast<size_t>(n_embd_);
    for (const Reading &reading : plan_.readings) {
        if (reading.layers.front() == input_layer) {
            pool(reading, 0, [&](const Pick &pick) {
                return input_rows_.data() + static_cast<size_t>(pick.row - input_first_) * embd;
            });
        }
    }
}

} // namespace steerx
