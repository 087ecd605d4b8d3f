/* A libnvidia-ml.so.1 whose figures are a text file, so that NVML's Python binding runs its own code without a GPU.
 *
 * FAKE_NVML_STATE names the file. It has a line for each GPU, of fields parted by '|':
 *
 *     uuid|name|GPU %|memory %|total MiB|used MiB|degrees Celsius|milliwatts|error
 *
 * `error` is an nvmlReturn_t (0: none) that every question about this GPU is answered with: 15 is a GPU that fell off
 * the bus. The file is read at each call; who writes it renames a whole one into place. NVIDIA_VISIBLE_DEVICES picks
 * the GPUs by uuid, as NVIDIA's container toolkit does.
 *
 * Numbers and layouts are those of nvml.h (docs.nvidia.com/deploy/nvml-api). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum Result {
    SUCCESS = 0,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    INSUFFICIENT_SIZE = 7,
    DRIVER_NOT_LOADED = 9,
    GPU_IS_LOST = 15,
};

enum { MOST_GPUS = 16, TEXT = 96, LINE = 512, TEMPERATURE_OF_GPU = 0 };

typedef struct {
    char uuid[TEXT], name[TEXT];
    unsigned gpu_percent, memory_percent;
    unsigned long long total_mib, used_mib;
    unsigned celsius, milliwatts;
    int error;
} Gpu;

/* A handle is the address of its place here: it stays good whatever the file says later. */
static char places[MOST_GPUS];

static int is_visible(const char *uuid) {
    const char *wanted = getenv("NVIDIA_VISIBLE_DEVICES");
    if (wanted == NULL || strcmp(wanted, "all") == 0) return 1;
    while (*wanted != '\0') {
        size_t length = strcspn(wanted, ",");
        if (length == strlen(uuid) && strncmp(wanted, uuid, length) == 0) return 1;
        wanted += length + (wanted[length] == ',');
    }
    return 0;
}

static int parse(const char *line, Gpu *gpu) {
    int fields = sscanf(line, "%95[^|]|%95[^|]|%u|%u|%llu|%llu|%u|%u|%d", gpu->uuid, gpu->name, &gpu->gpu_percent,
                        &gpu->memory_percent, &gpu->total_mib, &gpu->used_mib, &gpu->celsius, &gpu->milliwatts,
                        &gpu->error);
    return fields == 9;
}

/* Reads the visible GPUs; returns how many, or -1 where there is no file, which stands for a driver that is not loaded. */
static int read_gpus(Gpu gpus[MOST_GPUS]) {
    const char *path = getenv("FAKE_NVML_STATE");
    FILE *file = path == NULL ? NULL : fopen(path, "r");
    if (file == NULL) return -1;
    char line[LINE];
    int count = 0;
    while (count < MOST_GPUS && fgets(line, sizeof line, file) != NULL)
        if (parse(line, &gpus[count]) && is_visible(gpus[count].uuid)) count++;
    fclose(file);
    return count;
}

static enum Result look(const void *device, Gpu *found) {
    Gpu gpus[MOST_GPUS];
    int count = read_gpus(gpus);
    if (count < 0) return DRIVER_NOT_LOADED;
    long place = (const char *)device - places;
    if (place < 0 || place >= count) return INVALID_ARGUMENT;
    *found = gpus[place];
    return (enum Result)found->error;
}

static enum Result put(char *text, unsigned size, const char *value) {
    return (size_t)snprintf(text, size, "%s", value) < size ? SUCCESS : INSUFFICIENT_SIZE;
}

enum Result nvmlInitWithFlags(unsigned flags) {
    Gpu gpus[MOST_GPUS];
    (void)flags;
    return read_gpus(gpus) < 0 ? DRIVER_NOT_LOADED : SUCCESS;
}

enum Result nvmlShutdown(void) { return SUCCESS; }

const char *nvmlErrorString(enum Result result) {
    switch (result) {
        case SUCCESS: return "Success";
        case INVALID_ARGUMENT: return "Invalid Argument";
        case NOT_SUPPORTED: return "Not Supported";
        case INSUFFICIENT_SIZE: return "Insufficient Size";
        case DRIVER_NOT_LOADED: return "Driver Not Loaded";
        case GPU_IS_LOST: return "GPU is lost";
    }
    return "Unknown Error";
}

enum Result nvmlDeviceGetCount_v2(unsigned *count) {
    Gpu gpus[MOST_GPUS];
    int found = read_gpus(gpus);
    if (found < 0) return DRIVER_NOT_LOADED;
    *count = (unsigned)found;
    return SUCCESS;
}

enum Result nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    unsigned count;
    enum Result result = nvmlDeviceGetCount_v2(&count);
    if (result != SUCCESS) return result;
    if (index >= count) return INVALID_ARGUMENT;
    *device = &places[index];
    return SUCCESS;
}

enum Result nvmlDeviceGetUUID(void *device, char *uuid, unsigned size) {
    Gpu gpu;
    enum Result result = look(device, &gpu);
    return result == SUCCESS ? put(uuid, size, gpu.uuid) : result;
}

enum Result nvmlDeviceGetName(void *device, char *name, unsigned size) {
    Gpu gpu;
    enum Result result = look(device, &gpu);
    return result == SUCCESS ? put(name, size, gpu.name) : result;
}

typedef struct {
    unsigned gpu, memory;
} Utilization;

enum Result nvmlDeviceGetUtilizationRates(void *device, Utilization *rates) {
    Gpu gpu;
    enum Result result = look(device, &gpu);
    if (result == SUCCESS) *rates = (Utilization){gpu.gpu_percent, gpu.memory_percent};
    return result;
}

typedef struct {
    unsigned long long total, free, used;
} Memory;

enum Result nvmlDeviceGetMemoryInfo(void *device, Memory *memory) {
    Gpu gpu;
    enum Result result = look(device, &gpu);
    if (result == SUCCESS)
        *memory = (Memory){gpu.total_mib << 20, (gpu.total_mib - gpu.used_mib) << 20, gpu.used_mib << 20};
    return result;
}

enum Result nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius) {
    Gpu gpu;
    if (sensor != TEMPERATURE_OF_GPU) return NOT_SUPPORTED;
    enum Result result = look(device, &gpu);
    if (result == SUCCESS) *celsius = gpu.celsius;
    return result;
}

enum Result nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) {
    Gpu gpu;
    enum Result result = look(device, &gpu);
    if (result == SUCCESS) *milliwatts = gpu.milliwatts;
    return result;
}
